use std::collections::BTreeSet;

use super::*;

/// The paths that the modules of this API name in their routes.
fn routed() -> BTreeSet<String> {
    let sources = [
        include_str!("alerts.rs"),
        include_str!("destinations.rs"),
        include_str!("devices.rs"),
        include_str!("explain.rs"),
        #[cfg(feature = "graphql")]
        include_str!("graphql/mod.rs"),
        include_str!("groups.rs"),
        include_str!("history.rs"),
        include_str!("levels.rs"),
        include_str!("logs/mod.rs"),
        include_str!("overrides.rs"),
        include_str!("../http/session.rs"),
    ];
    let mut paths = BTreeSet::new();
    for source in sources {
        let quoted = source.split('"').skip(1).step_by(2);
        paths.extend(
            quoted
                .filter(|text| text.starts_with("/api/") || *text == "/graphql")
                .map(str::to_owned),
        );
    }
    paths
}

#[test]
fn every_path_is_described_and_no_other() {
    let document = openapi::whole();
    let described = document["paths"].as_object().unwrap().keys().cloned();
    assert_eq!(described.collect::<BTreeSet<_>>(), routed());
}

#[test]
fn every_reference_leads_somewhere() {
    let document = openapi::whole();
    let text = document.to_string();
    let references = text.split(r##""$ref":"#/components/schemas/"##).skip(1);
    for reference in references {
        let name = reference.split('"').next().unwrap();
        assert!(
            document["components"]["schemas"][name].is_object(),
            "{name}"
        );
    }
}
