//! What the router may deliver to: a destination may ask for a role, and the fleet's logging options
//! name one (`role` of `config/default`, AWS's SetV2LoggingOptions). A destination that asks for none may
//! always be delivered to.

use std::sync::Arc;

use thinglog_schemas::topic::ConfigTopic;
use tracing::{info, warn};

use super::Levels;

/// Whether one destination may have events; asked of the documents only when they have changed.
#[derive(Debug)]
pub(crate) struct Permit {
    levels: Arc<Levels>,
    destination: String,
    /// Any of these will do.
    roles: Vec<String>,
    /// As of this version of the documents.
    granted: Option<(u64, bool)>,
}

impl Permit {
    /// For a destination that asks for one of these roles.
    pub(crate) fn new(levels: Arc<Levels>, destination: &str, roles: &[String]) -> Permit {
        Permit {
            levels,
            destination: destination.to_owned(),
            roles: roles.to_vec(),
            granted: None,
        }
    }

    /// Whether the fleet's role is one of those asked for. Says so in the log when it changes.
    pub(crate) fn is_granted(&mut self) -> bool {
        let version = self.levels.version();
        match self.granted {
            Some((of, granted)) if of == version => granted,
            before => {
                let granted = self.ask(before.map(|(_, granted)| granted));
                self.granted = Some((version, granted));
                granted
            }
        }
    }

    fn ask(&self, before: Option<bool>) -> bool {
        let role = self.levels.read(|fleet| {
            let document = fleet.level_document(ConfigTopic::Default);
            document.and_then(|document| document.role.clone())
        });
        let granted = role.as_ref().is_some_and(|role| self.roles.contains(role));
        let (destination, role) = (&self.destination, role.as_deref().unwrap_or("none"));
        if !granted && before != Some(false) {
            warn!(
                destination,
                role,
                "the fleet's role does not let events go to this destination: they are filtered"
            );
        } else if granted && before == Some(false) {
            info!(destination, role, "events go to this destination again");
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_granted_by_the_default_s_document_alone() {
        let (levels, _) = Levels::new();
        let roles = ["a".to_owned(), "b".to_owned()];
        let mut permit = Permit::new(Arc::clone(&levels), "archive", &roles);
        assert!(!permit.is_granted());
        for (document, granted) in [
            (r#"{"role":"b"}"#, true),
            (r#"{"role":"b","level":"WARN"}"#, true),
            (r#"{"role":"c","level":"WARN"}"#, false),
            (r#"{"role":"a","disabled":true}"#, true),
            (r#"{"level":"WARN"}"#, false),
            ("", false),
        ] {
            levels
                .change(|fleet| fleet.apply(ConfigTopic::Default, document.as_bytes()))
                .unwrap();
            assert_eq!(permit.is_granted(), granted, "{document}");
        }
    }
}
