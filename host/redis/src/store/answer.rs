//! What the server answers, read strictly: an answer of another form is not taken for one of ours.

use circuitry_store::{Entry, Loaded, Version};
use redis::Value;

/// What the script answers.
pub(super) enum Ruling {
    Stored { now_ms: u64 },
    Conflict(Loaded),
    Foreign,
}

impl Ruling {
    pub(super) fn now_ms(&self) -> Option<u64> {
        match self {
            Self::Stored { now_ms } => Some(*now_ms),
            Self::Conflict(loaded) => loaded.now_ms,
            Self::Foreign => None,
        }
    }
}

/// Why an answer to HMGET is no entry.
pub(super) enum Misfit {
    /// One of the fields is there without the other.
    Foreign,
    Unreadable(Value),
}

pub(super) fn entry_in(fields: Value) -> Result<Option<Entry>, Misfit> {
    let Value::Array(fields) = fields else { return Err(Misfit::Unreadable(fields)) };
    match <[Value; 2]>::try_from(fields) {
        Ok([Value::BulkString(version), Value::BulkString(value)]) => {
            Ok(Some(Entry { value, version: Version::from_bytes(version) }))
        }
        Ok([Value::Nil, Value::Nil]) => Ok(None),
        Ok([Value::Nil, Value::BulkString(_)] | [Value::BulkString(_), Value::Nil]) => Err(Misfit::Foreign),
        Ok(fields) => Err(Misfit::Unreadable(Value::Array(fields.into()))),
        Err(fields) => Err(Misfit::Unreadable(Value::Array(fields))),
    }
}

/// TIME answers seconds and, as their fraction, microseconds.
pub(super) fn time_in(answer: &Value) -> Option<u64> {
    let (seconds, microseconds): (u64, u64) = redis::from_redis_value_ref(answer).ok()?;
    seconds.checked_mul(1000)?.checked_add(microseconds / 1000)
}

pub(super) fn ruling_in(answers: &[Value]) -> Option<Ruling> {
    let [Value::Array(answer)] = answers else { return None };
    let [Value::Int(ruling), Value::Int(now_ms), rest @ ..] = &answer[..] else { return None };
    let now_ms = u64::try_from(*now_ms).ok()?;
    let conflict = |entry| Ruling::Conflict(Loaded { entry, now_ms: Some(now_ms) });
    match (ruling, rest) {
        (1, []) => Some(Ruling::Stored { now_ms }),
        (0, []) => Some(conflict(None)),
        (0, [Value::BulkString(version), Value::BulkString(value)]) => {
            let version = Version::from_bytes(version.clone());
            Some(conflict(Some(Entry { value: value.clone(), version })))
        }
        (2, []) => Some(Ruling::Foreign),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_another_form_is_not_taken_for_one_of_ours() {
        let (int, text) = (Value::Int, |text: &str| Value::BulkString(text.into()));
        let others = [
            vec![],
            vec![Value::Okay],
            vec![Value::Array(vec![])],
            vec![Value::Array(vec![int(1)])],
            vec![Value::Array(vec![int(3), int(5)])],
            vec![Value::Array(vec![int(1), int(-5)])],
            vec![Value::Array(vec![int(1), int(5), text("more")])],
            vec![Value::Array(vec![int(0), int(5), text("version")])],
            vec![Value::Array(vec![int(0), int(5), text("version"), Value::Nil])],
            vec![Value::Array(vec![int(1), int(5)]), Value::Okay],
        ];
        for answers in others {
            assert!(ruling_in(&answers).is_none(), "{answers:?}");
        }
        assert!(matches!(
            ruling_in(&[Value::Array(vec![int(1), int(5)])]),
            Some(Ruling::Stored { now_ms: 5 })
        ));
    }

    #[test]
    fn a_time_is_told_in_milliseconds() {
        let time = |seconds: &str, microseconds: &str| {
            time_in(&Value::Array(vec![
                Value::BulkString(seconds.into()),
                Value::BulkString(microseconds.into()),
            ]))
        };
        assert_eq!(time("1700000000", "999999"), Some(1_700_000_000_999));
        assert_eq!(time("1700000000", "999"), Some(1_700_000_000_000));
        assert_eq!(time("18446744073709551615", "0"), None);
        assert_eq!(time_in(&Value::Okay), None);
    }
}
