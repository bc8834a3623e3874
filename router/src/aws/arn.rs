//! Names of things and groups as AWS writes them: ARNs and ids, the same whenever they are asked for.

use sha2::{Digest, Sha256};

use super::error::Error;
use super::input::old_name;

/// Partition, service, region and account of everything here.
const OURS: &str = "arn:aws:iot:us-east-1:000000000000:";

pub(super) fn of_thing(name: &str) -> String {
    format!("{OURS}thing/{name}")
}

pub(super) fn of_group(name: &str) -> String {
    format!("{OURS}thinggroup/{name}")
}

/// The name that a request gives, as name or as ARN (`kind` is `thing` or `thinggroup`); both must be of
/// the same.
pub(super) fn name(name: Option<String>, arn: Option<String>, kind: &str) -> Result<String, Error> {
    let from_arn =
        match &arn {
            None => None,
            Some(arn) => {
                let own = arn.strip_prefix(OURS);
                let named = own.and_then(|rest| rest.strip_prefix(kind)?.strip_prefix('/'));
                Some(named.ok_or_else(|| {
                    Error::invalid(format!("{arn:?} is none of {OURS}{kind}/NAME"))
                })?)
            }
        };
    match (name.as_deref(), from_arn) {
        (Some(name), Some(other)) if name != other => {
            Err(Error::invalid(format!("the ARN is not that of {name:?}")))
        }
        (Some(name), _) | (None, Some(name)) => old_name(name, kind),
        (None, None) => Err(Error::invalid(format!(
            "neither name nor ARN of the {kind}"
        ))),
    }
}

/// The id of a thing or group: of its name and of when it was created, in the form of a UUID.
pub(super) fn id(kind: &str, name: &str, created: Option<&str>) -> String {
    let digest = Sha256::new()
        .chain_update(kind)
        .chain_update("/")
        .chain_update(name)
        .chain_update("/")
        .chain_update(created.unwrap_or_default())
        .finalize();
    let hex: String = digest[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_stands_for_its_name() {
        let given = |n: &str| Some(n.to_owned());
        assert_eq!(
            name(None, Some(of_group("eu")), "thinggroup"),
            Ok("eu".into())
        );
        assert_eq!(
            name(given("eu"), Some(of_group("eu")), "thinggroup"),
            Ok("eu".into())
        );
        for (n, arn) in [
            (None, None),
            (given("us"), Some(of_group("eu"))),
            (None, Some(of_thing("eu"))),
            (None, given("arn:aws:iot:eu-west-1:1:thinggroup/eu")),
            (given("a/b"), None),
        ] {
            assert!(
                name(n.clone(), arn.clone(), "thinggroup").is_err(),
                "{n:?} {arn:?}"
            );
        }
    }

    #[test]
    fn an_id_is_of_one_thing_and_its_life() {
        let first = id("thing", "lamp", Some("2026-01-01T00:00:00Z"));
        assert_eq!(first, id("thing", "lamp", Some("2026-01-01T00:00:00Z")));
        assert_eq!(first.len(), 36);
        assert_ne!(first, id("thing", "lamp", Some("2026-01-02T00:00:00Z")));
        assert_ne!(first, id("group", "lamp", Some("2026-01-01T00:00:00Z")));
    }
}
