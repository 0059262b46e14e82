//! A [`Link`] that plays a script: what each message is answered, and what was sent.

use std::collections::VecDeque;

use super::*;

type Answered = Result<&'static [u8], Trouble>;

#[derive(Default)]
struct Played {
    now_ns: u64,
    connections: VecDeque<Result<bool, Trouble>>,
    answers: VecDeque<Answered>,
    sent: Vec<Vec<u8>>,
    closed: usize,
}

impl Link for Played {
    fn now_ns(&mut self) -> u64 {
        self.now_ns
    }
    fn random(&mut self) -> [u8; 16] {
        *b"0123456789abcdef"
    }
    fn ready(&mut self, _: u64) -> Result<bool, Trouble> {
        self.connections.pop_front().unwrap_or(Ok(false))
    }
    fn ask(&mut self, message: &[u8], count: usize, _: u64) -> Result<Vec<Reply>, Trouble> {
        self.sent.push(message.to_vec());
        let replies = replies_in(self.answers.pop_front().expect("an answer for each message")?);
        assert_eq!(replies.len(), count, "replies to {:?}", String::from_utf8_lossy(message));
        Ok(replies)
    }
    fn close(&mut self) {
        self.closed = self.closed.saturating_add(1);
    }
}

fn replies_in(mut bytes: &[u8]) -> Vec<Reply> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let (reply, size) = crate::resp::read(bytes).expect("of the protocol").expect("whole");
        replies.push(reply);
        bytes = &bytes[size..];
    }
    replies
}

fn store_at(url: &str, connections: &[Result<bool, Trouble>], answers: &[Answered]) -> Store<Played> {
    let link = Played {
        connections: connections.iter().cloned().collect(),
        answers: answers.iter().cloned().collect(),
        ..Played::default()
    };
    Store::new(link, Address::read(url).expect("a URL"), "p:".to_owned(), 100)
}

/// On a connection that is there.
fn store(answers: &[Answered]) -> Store<Played> {
    store_at("redis://host", &[], answers)
}

fn swap(store: &mut Store<Played>) -> Result<Swapped, StoreError> {
    store.swap("a/b", Some(b"old"), b"value", Some(5))
}

fn sent(store: &Store<Played>) -> Vec<String> {
    let words = |message: &Vec<u8>| {
        let text = String::from_utf8_lossy(message).into_owned();
        let mut words = text.split("\r\n").filter(|line| !line.starts_with(['*', '$'])).collect::<Vec<_>>();
        words.pop();
        words.join(" ").replace(SWAP_SHA1, "<sha>").replace(&SWAP_SCRIPT.replace('\n', "\r\n"), "<script>")
    };
    store.link.sent.iter().map(words).collect()
}

fn lost() -> Trouble {
    Trouble::NoAnswer("there was no answer in time".to_owned())
}

const ENTRY: &[u8] = b"*2\r\n$3\r\nver\r\n$3\r\nval\r\n*2\r\n$4\r\n1000\r\n$4\r\n5000\r\n";
const TIME: &[u8] = b"*2\r\n$4\r\n1000\r\n$4\r\n5000\r\n";
const STORED: &[u8] = b"*2\r\n:1\r\n:2000\r\n";

#[test]
fn the_hash_of_the_script_is_that_of_its_text() {
    assert_eq!(sha1_smol::Sha1::from(SWAP_SCRIPT).digest().to_string(), SWAP_SHA1);
}

#[test]
fn a_load_asks_for_the_entry_and_for_the_time_when_that_is_old() {
    let mut store = store(&[Ok(ENTRY), Ok(b"*2\r\n$3\r\nver\r\n$3\r\nval\r\n"), Ok(ENTRY)]);
    let entry = Some(Entry { version: b"ver".to_vec(), value: b"val".to_vec() });
    let loaded = |now_ms| Ok(Loaded { entry: entry.clone(), now_ms: Some(now_ms) });
    assert_eq!(store.load("a"), loaded(1_000_005));
    store.link.now_ns = 9_999_000_000;
    assert_eq!(store.load("a"), loaded(1_010_004));
    store.link.now_ns = 10_000_000_000;
    assert_eq!(store.load("a"), loaded(1_000_005));
    assert_eq!(
        sent(&store),
        ["HMGET p:a version value TIME", "HMGET p:a version value", "HMGET p:a version value TIME"]
    );
}

#[test]
fn a_new_connection_logs_in_with_the_same_message() {
    let mut store = store_at(
        "redis://me:s3cret@host/3",
        &[Ok(true)],
        &[Ok(&[b"+OK\r\n+OK\r\n".as_slice(), ENTRY].concat().leak()[..])],
    );
    assert!(store.load("a").is_ok());
    assert_eq!(sent(&store), ["AUTH me s3cret SELECT 3 HMGET p:a version value TIME"]);
}

#[test]
fn a_login_that_does_not_fit_is_denied_and_tells_no_password() {
    for reply in [
        &b"-WRONGPASS invalid username-password pair or user is disabled.\r\n-NOAUTH Authentication required.\r\n-NOAUTH x\r\n"[..],
        b"-ERR AUTH <password> called without any password configured\r\n*2\r\n$-1\r\n$-1\r\n*2\r\n$1\r\n1\r\n$1\r\n1\r\n",
        // As of a server that knows no AUTH, and of a proxy that does not know the command's arguments.
        b"-ERR unknown command 'AUTH', with args beginning with: 's3cret' \r\n*2\r\n$-1\r\n$-1\r\n*2\r\n$1\r\n1\r\n$1\r\n1\r\n",
        b"-s3cret\r\n-NOAUTH x\r\n-NOAUTH x\r\n",
    ] {
        let mut store = store_at("redis://:s3cret@host", &[Ok(true)], &[Ok(reply)]);
        let error = store.load("a").expect_err("no login");
        assert!(matches!(&error, StoreError::Denied(text) if !text.contains("s3cret")), "{error:?}");
        assert_eq!(store.link.closed, 1);
    }
}

#[test]
fn a_database_that_is_not_there_is_no_login_that_does_not_fit() {
    const REPLY: &[u8] =
        b"+OK\r\n-ERR DB index is out of range\r\n*2\r\n$-1\r\n$-1\r\n*2\r\n$1\r\n1\r\n$1\r\n1\r\n";
    let mut store = store_at("redis://:s3cret@host/99", &[Ok(true)], &[Ok(REPLY)]);
    let error = store.load("a").expect_err("no such database");
    assert!(
        matches!(&error, StoreError::Other(text) if text.contains("DB index is out of range")),
        "{error:?}"
    );
    assert_eq!(store.link.closed, 1);
}

#[test]
fn a_connection_to_a_server_that_is_no_master_or_knows_us_no_more_is_given_up() {
    for error in ["READONLY You can't write", "MASTERDOWN Link down", "NOAUTH Authentication", "WRONGPASS x"]
    {
        let reply: &[u8] = format!("-{error}\r\n").leak().as_bytes();
        let mut swapping = store(&[Ok(reply)]);
        assert!(swap(&mut swapping).is_err());
        assert_eq!(swapping.link.closed, 1, "{error}");
        let mut loading = store(&[Ok([reply, TIME].concat().leak())]);
        assert!(loading.load("a").is_err());
        assert_eq!(loading.link.closed, 1, "{error}");
        let mut proving = store_at("redis://host", &[Ok(true)], &[Ok(reply)]);
        assert!(swap(&mut proving).is_err());
        assert_eq!(proving.link.closed, 1, "{error}");
    }
    for error in ["OOM command not allowed", "NOPERM no permissions", "LOADING in memory"] {
        let mut store = store(&[Ok(format!("-{error}\r\n").leak().as_bytes())]);
        assert!(swap(&mut store).is_err());
        assert_eq!(store.link.closed, 0, "{error}");
    }
}

#[test]
fn whoever_is_turned_away_says_what_the_server_has_said() {
    let cut = |bytes| Err(Trouble::Cut(replies_in(bytes), "the server closed the connection".to_owned()));
    let (full, protected) =
        (b"-ERR max number of clients reached\r\n", b"-DENIED Redis is running in protected mode\r\n");
    for url in ["redis://host", "redis://:s3cret@host"] {
        for is_swap in [false, true] {
            let ask = |answer| {
                let mut store = store_at(url, &[Ok(true)], &[answer]);
                if is_swap {
                    swap(&mut store).expect_err("no answer")
                } else {
                    store.load("a").expect_err("no answer")
                }
            };
            let error = ask(cut(full));
            assert!(
                matches!(&error, StoreError::Unavailable(text) if text.contains("max number of clients")),
                "{error:?}"
            );
            let error = ask(cut(protected));
            let (StoreError::Other(text) | StoreError::Denied(text)) = &error else { panic!("{error:?}") };
            assert!(text.contains("protected mode"), "{text}");
            let error = ask(cut(b"+OK\r\n"));
            assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("closed")), "{error:?}");
        }
    }
    // A write that was sent may have been carried out, whatever somebody says before he goes.
    assert!(matches!(swap(&mut store(&[cut(full)])), Err(StoreError::Unknown(_))));
}

#[test]
fn an_answer_that_is_none_of_redis_is_told_from_no_answer() {
    let malformed = || Err(Trouble::Malformed("a line of no kind that the protocol has"));
    for is_swap in [false, true] {
        let mut store = store_at("redis://host", &[Ok(true)], &[malformed()]);
        let answer = if is_swap { swap(&mut store).map(drop) } else { store.load("a").map(drop) };
        assert!(
            matches!(&answer, Err(StoreError::Other(text)) if text.contains("not one of Redis")),
            "{answer:?}"
        );
    }
    let answer = swap(&mut store(&[malformed()]));
    assert!(
        matches!(&answer, Err(StoreError::Unknown(text)) if text.contains("not one of Redis")),
        "{answer:?}"
    );
}

#[test]
fn a_cluster_is_named_and_not_tried_again() {
    for reply in [&b"-MOVED 3999 127.0.0.1:6381\r\n"[..], b"-ASK 3999 127.0.0.1:6381\r\n"] {
        let answer = swap(&mut store(&[Ok(reply)]));
        assert!(
            matches!(&answer, Err(StoreError::Other(text)) if text.contains("Redis Cluster")),
            "{answer:?}"
        );
    }
}

#[test]
fn a_kept_connection_that_is_dead_is_made_again_for_a_load() {
    let mut store = store_at("redis://host", &[Ok(false), Ok(true)], &[Err(lost()), Ok(ENTRY)]);
    assert!(store.load("a").is_ok());
    // One that was just made is not.
    let mut store = store_at("redis://host", &[Ok(true)], &[Err(lost())]);
    assert!(matches!(store.load("a"), Err(StoreError::Unavailable(_))));
}

#[test]
fn an_absent_entry_is_told_from_a_hash_of_somebody_else() {
    const NOTHING: &[u8] = b"*2\r\n$-1\r\n$-1\r\n*2\r\n$4\r\n1000\r\n$4\r\n5000\r\n";
    let mut absent = store(&[Ok(NOTHING), Ok(b":0\r\n*2\r\n$-1\r\n$-1\r\n")]);
    assert_eq!(absent.load("a"), Ok(Loaded { entry: None, now_ms: Some(1_000_005) }));
    let look = Ok(b":1\r\n*2\r\n$-1\r\n$-1\r\n".as_slice());
    let mut foreign = store(&[Ok(NOTHING), look.clone(), look.clone(), look]);
    assert!(
        matches!(foreign.load("a"), Err(StoreError::Other(text)) if text.contains("CIRCUITRY_REDIS_PREFIX"))
    );
    let mut created = store(&[Ok(NOTHING), Ok(b":1\r\n*2\r\n$3\r\nver\r\n$3\r\nval\r\n")]);
    assert!(matches!(created.load("a"), Ok(Loaded { entry: Some(_), .. })));
}

#[test]
fn a_key_of_another_type_is_named_and_left_alone() {
    let mut store = store(&[
        Ok(b"-WRONGTYPE Operation against a key\r\n*2\r\n$4\r\n1000\r\n$4\r\n5000\r\n"),
        Ok(b"+list\r\n"),
    ]);
    assert!(matches!(store.load("a"), Err(StoreError::Other(text)) if text.contains("a list")));
    let mut store = self::store(&[Ok(b"-WRONGTYPE Operation against a key\r\n"), Ok(b"+string\r\n")]);
    assert!(matches!(swap(&mut store), Err(StoreError::Other(text)) if text.contains("a string")));
}

#[test]
fn a_swap_on_a_new_connection_is_sent_only_after_the_server_has_answered() {
    let mut store = store_at(
        "redis://:s3cret@host",
        &[Ok(true)],
        &[Ok(&[b"+OK\r\n".as_slice(), TIME].concat().leak()[..]), Ok(STORED)],
    );
    let stored = Swapped::Stored { version: b"0123456789abcdef".to_vec(), now_ms: 2_000 };
    assert_eq!(swap(&mut store), Ok(stored));
    assert_eq!(sent(&store), ["AUTH s3cret TIME", "EVALSHA <sha> 1 p:a/b 1 old 0123456789abcdef value 5"]);

    let mut hanging = store_at("redis://host", &[Ok(true)], &[Err(lost())]);
    assert!(matches!(swap(&mut hanging), Err(StoreError::Unavailable(_))));
    assert_eq!(sent(&hanging), ["TIME"]);
}

#[test]
fn a_swap_is_sent_at_most_once() {
    let mut store = store(&[Err(lost())]);
    assert!(matches!(swap(&mut store), Err(StoreError::Unknown(_))));
    assert_eq!(store.link.sent.len(), 1);
}

#[test]
fn a_server_that_does_not_know_the_script_is_sent_its_text() {
    let mut store = store(&[Ok(b"-NOSCRIPT No matching script.\r\n"), Ok(STORED)]);
    assert!(matches!(swap(&mut store), Ok(Swapped::Stored { .. })));
    assert!(store.link.sent[1].windows(SWAP_SCRIPT.len()).any(|part| part == SWAP_SCRIPT.as_bytes()));
}

#[test]
fn a_swap_with_no_expectation_and_no_end_says_so() {
    let mut store = store(&[Ok(b"*4\r\n:0\r\n:2000\r\n$3\r\nver\r\n$3\r\nval\r\n")]);
    let entry = Some(Entry { version: b"ver".to_vec(), value: b"val".to_vec() });
    let conflict = Swapped::Conflict(Loaded { entry, now_ms: Some(2_000) });
    assert_eq!(store.swap("a", None, b"value", None), Ok(conflict));
    assert_eq!(sent(&store), ["EVALSHA <sha> 1 p:a 0  0123456789abcdef value "]);
    let mut store = self::store(&[Ok(STORED)]);
    assert!(store.swap("a", None, b"value", Some(u64::MAX)).is_ok());
    assert!(sent(&store)[0].ends_with(" 1000000000000000"));
}

#[test]
fn errors_to_a_swap_are_what_the_hosts_adapter_makes_of_them() {
    for (answer, unavailable, denied) in [
        (&b"-OOM command not allowed\r\n"[..], true, false),
        (b"-READONLY You can't write against a read only replica.\r\n", true, false),
        (b"-NOPERM this user has no permissions\r\n", false, true),
        (b"-ERR unknown command 'EVALSHA'\r\n", false, false),
        (b"*2\r\n:2\r\n:2000\r\n", false, false),
    ] {
        let mut store = store(&[Ok(answer)]);
        let error = swap(&mut store).expect_err("nothing was written");
        assert_eq!(matches!(error, StoreError::Unavailable(_)), unavailable, "{error:?}");
        assert_eq!(matches!(error, StoreError::Denied(_)), denied, "{error:?}");
        assert!(!matches!(error, StoreError::Unknown(_)), "{error:?}");
    }
}

#[test]
fn whoever_answers_a_swap_with_something_else_may_have_written() {
    for answer in [&b"+OK\r\n"[..], b"$-1\r\n", b":1\r\n", b"*3\r\n:0\r\n:5\r\n$1\r\nx\r\n"] {
        let mut store = store(&[Ok(answer)]);
        assert!(matches!(swap(&mut store), Err(StoreError::Unknown(_))));
        assert_eq!(store.link.closed, 1);
    }
    let mut store = store(&[Ok(b"+OK\r\n+OK\r\n")]);
    assert!(matches!(store.load("a"), Err(StoreError::Other(_))));
}

#[test]
fn a_name_of_no_circuit_is_refused_before_anything_is_sent() {
    let mut store = store(&[]);
    assert!(matches!(store.load(""), Err(StoreError::Other(_))));
    assert!(matches!(store.swap(&"x".repeat(1_025), None, b"", None), Err(StoreError::Other(_))));
}

#[test]
fn nothing_is_sent_where_there_is_no_connection() {
    let none = Trouble::NoConnection("refused".to_owned());
    let mut store = store_at("redis://host", &[Err(none.clone()), Err(none)], &[]);
    assert!(matches!(store.load("a"), Err(StoreError::Unavailable(_))));
    assert!(matches!(swap(&mut store), Err(StoreError::Unavailable(_))));
    let mut store = store_at("redis://host", &[Err(Trouble::NoAccess("-S tcp".to_owned()))], &[]);
    assert!(matches!(store.load("a"), Err(StoreError::Denied(_))));
    let mut store = store_at("redis://host", &[Err(Trouble::Misconfigured("no name".to_owned()))], &[]);
    assert!(matches!(store.load("a"), Err(StoreError::Other(_))));
}
