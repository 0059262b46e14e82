//! The name of a request's circuit: that of the host's default (`breaker_for(upstream, Context::tenant(tenant))`), so that
//! workers share it.

use alloc::format;
use alloc::string::String;

/// The longest name of a circuit.
const NAME_MAX: usize = 1_024;

/// Whether an upstream of this name leaves room for that of a tenant.
pub(crate) fn has_room(name: &str) -> bool {
    escaped(name).len().saturating_add("/t".len()) <= NAME_MAX
}

/// The circuit of the upstream `name`, where tenants are told apart that of the tenant named by its header's `values`.
///
/// # Errors
/// Why the request has no circuit. It is never another tenant's.
pub(crate) fn circuit_name<'a>(
    name: &str,
    tenant_values: Option<impl Iterator<Item = &'a [u8]>>,
) -> Result<String, &'static str> {
    let circuit = match tenant_values {
        None => escaped(name),
        Some(values) => format!("{}/{}", escaped(name), escaped(tenant(values)?)),
    };
    if circuit.len() > NAME_MAX {
        return Err("the tenant's name is too long");
    }
    Ok(circuit)
}

fn tenant<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Result<&'a str, &'static str> {
    let value = values.next().ok_or("the header that names the tenant is missing")?;
    if values.next().is_some() {
        return Err("the header that names the tenant is there more than once");
    }
    match core::str::from_utf8(value) {
        Ok("") => Err("the header that names the tenant is empty"),
        Ok(tenant) if tenant.chars().any(char::is_control) => Err("the tenant's name has control characters"),
        Ok(tenant) => Ok(tenant),
        Err(_) => Err("the tenant's name is not UTF-8"),
    }
}

/// So that no two pairs share a circuit.
fn escaped(part: &str) -> String {
    part.replace('%', "%25").replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(upstream: &str, values: &[&[u8]]) -> Result<String, &'static str> {
        circuit_name(upstream, Some(values.iter().copied()))
    }

    #[test]
    fn a_circuit_is_named_as_the_hosts_name_it() {
        assert_eq!(circuit_name("emails", None::<core::iter::Empty<&[u8]>>).as_deref(), Ok("emails"));
        assert_eq!(name("emails", &[b"acme"]).as_deref(), Ok("emails/acme"));
        assert_eq!(name("a/b", &[b"100%/x"]).as_deref(), Ok("a%2Fb/100%25%2Fx"));
        assert_eq!(name("emails", &["m\u{fc}ller".as_bytes()]).as_deref(), Ok("emails/m\u{fc}ller"));
    }

    #[test]
    fn a_tenant_that_cannot_be_told_has_no_circuit() {
        for values in [
            &[][..],
            &[b"".as_slice()],
            &[b"acme", b"acme"],
            &[b"\xff"],
            &[b"a\tb"],
            &[&[b'x'; 1_100]],
            &[&[b'%'; 400]],
        ] {
            assert!(name("emails", values).is_err(), "{values:?}");
        }
    }

    #[test]
    fn an_upstream_has_room_where_the_shortest_tenant_has_a_circuit() {
        for upstream in ["x".repeat(1_022), "x".repeat(1_023), "/".repeat(340), "/".repeat(341)] {
            assert_eq!(has_room(&upstream), name(&upstream, &[b"t"]).is_ok(), "{} bytes", upstream.len());
        }
    }

    proptest::proptest! {
        #[test]
        fn two_tenants_never_share_a_circuit(one in "[a-c%/25F]{1,8}", other in "[a-c%/25F]{1,8}") {
            let (first, second) = (name("web", &[one.as_bytes()]), name("web", &[other.as_bytes()]));
            proptest::prop_assert_eq!(first == second, one == other);
        }
    }
}
