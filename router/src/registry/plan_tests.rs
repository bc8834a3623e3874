use serde_json::json;
use thinglog_schemas::Level;

use super::*;
use crate::levels::configuration::Configuration;
use crate::registry::contacts::Contacts;
use crate::registry::devices::Devices;

const NOW: u64 = 1_767_323_045_000_000_000;

/// A fleet of documents, as a broker would hold them.
#[derive(Default)]
struct Site {
    configuration: Configuration,
    devices: Devices,
    contacts: Contacts,
}

impl Site {
    fn with(documents: &[(&str, Value)]) -> Site {
        let mut site = Site::default();
        for (topic, document) in documents {
            site.put(topic, document.to_string().as_bytes());
        }
        site
    }

    fn put(&mut self, topic: &str, payload: &[u8]) {
        let whole = format!("thinglog/{topic}");
        let topics = thinglog_schemas::Topics::default();
        let thinglog_schemas::Topic::Config(topic) = topics.parse(&whole).unwrap() else {
            return;
        };
        self.configuration.apply(topic, payload).unwrap();
    }

    fn plan(&self, change: Change) -> Result<Vec<Write>, Refusal> {
        let view = View {
            configuration: &self.configuration,
            devices: &self.devices,
            contacts: &self.contacts,
            now: NOW,
        };
        plan(&change, &view, "ann")
    }

    /// What is written, as `(topic, document without by and at)`.
    fn writes(&self, change: Change) -> Vec<(String, Value)> {
        let planned = self.plan(change).unwrap().into_iter();
        let shown = planned.map(|write| {
            let document = write.document.map_or(Value::Null, |mut document| {
                assert_eq!(document.remove("by"), Some(json!("ann")));
                assert_eq!(
                    document.remove("at"),
                    Some(json!("2026-01-02T03:04:05.000000000Z"))
                );
                Value::Object(document)
            });
            (write.topic, document)
        });
        shown.collect()
    }

    fn refused(&self, change: Change) -> Code {
        self.plan(change).unwrap_err().code
    }

    /// Makes a change, as if it had been published and had come back.
    fn make(&mut self, change: Change) {
        for write in self.plan(change).unwrap() {
            self.put(&write.topic, &write.payload());
        }
    }
}

fn fields(value: Value) -> Map<String, Value> {
    let Value::Object(fields) = value else {
        panic!("no object");
    };
    fields
}

fn lamp() -> Target {
    Target::Device("lamp-7".into())
}

fn set(target: Target, settings: Value) -> Change {
    let settings = fields(settings);
    Change::SetLevel { target, settings }
}

fn patch(target: Target, patch: Value) -> Change {
    let patch = fields(patch);
    Change::PatchLevel { target, patch }
}

fn create_group(name: &str, parent: Option<&str>) -> Change {
    let group = NewGroup {
        parent: parent.map(str::to_owned),
        ..NewGroup::default()
    };
    let name = name.into();
    Change::CreateGroup { name, group }
}

fn join(group: &str, device: &str) -> Change {
    let (group, device) = (group.into(), device.into());
    Change::Join { group, device }
}

#[test]
fn setting_a_level_replaces_the_level_part_and_nothing_else() {
    let documents = [(
        "config/device/lamp-7",
        json!({"level": "WARN", "sources": {"a": "INFO"}, "attributes": {"model": "x1"}}),
    )];
    let site = Site::with(&documents);
    let topic = "config/device/lamp-7".to_owned();
    let expected = json!({"level": "DEBUG", "attributes": {"model": "x1"}});
    assert_eq!(
        site.writes(set(lamp(), json!({"level": "DEBUG"}))),
        [(topic.clone(), expected)]
    );
    let expected =
        json!({"level": "WARN", "sources": {"b": "WARN"}, "attributes": {"model": "x1"}});
    assert_eq!(
        site.writes(patch(lamp(), json!({"sources": {"a": null, "b": "WARN"}}))),
        [(topic.clone(), expected)]
    );
    let expected = json!({"attributes": {"model": "x1"}});
    assert_eq!(
        site.writes(Change::DeleteLevel { target: lamp() }),
        [(topic, expected)]
    );
}

#[test]
fn what_stands_already_is_not_written() {
    let mut site = Site::default();
    let change = set(lamp(), json!({"level": "DEBUG"}));
    site.make(change.clone());
    assert_eq!(site.writes(change), []);
    site.make(create_group("eu", None));
    assert_eq!(site.writes(create_group("eu", None)), []);
    site.make(join("eu", "lamp-7"));
    assert_eq!(site.writes(join("eu", "lamp-7")), []);
}

#[test]
fn a_document_that_says_nothing_more_is_removed() {
    let mut site = Site::default();
    site.make(set(lamp(), json!({"level": "DEBUG"})));
    assert_eq!(
        site.writes(patch(lamp(), json!({"level": null}))),
        [("config/device/lamp-7".to_owned(), Value::Null)]
    );
    let delete = Change::DeleteLevel { target: lamp() };
    site.make(delete.clone());
    assert_eq!(site.refused(delete), Code::ResourceNotFound);
}

#[test]
fn a_bad_document_is_refused_before_it_is_published() {
    let site = Site::default();
    for settings in [
        json!({"level": "LOUD"}),
        json!({"parent": "eu"}),
        json!({"disabled": true}),
        json!({"sources": {"a b": "INFO"}}),
    ] {
        assert_eq!(site.refused(set(lamp(), settings)), Code::InvalidRequest);
    }
    let default = set(Target::Default, json!({"disabled": true}));
    assert_eq!(site.writes(default).len(), 1);
}

#[test]
fn a_group_is_created_once_and_updated_by_version() {
    let mut site = Site::default();
    site.make(create_group("eu", None));
    site.make(create_group("de", Some("eu")));
    assert_eq!(
        site.refused(create_group("de", None)),
        Code::ResourceAlreadyExists
    );
    assert_eq!(
        site.refused(create_group("fr", Some("nowhere"))),
        Code::ResourceNotFound
    );
    let update = |expected_version, text: &str| Change::UpdateGroup {
        name: "eu".into(),
        patch: GroupPatch {
            description: Some(Some(text.into())),
            expected_version,
            ..GroupPatch::default()
        },
    };
    assert_eq!(site.refused(update(Some(2), "a")), Code::VersionConflict);
    site.make(update(Some(1), "a"));
    assert_eq!(site.refused(update(Some(1), "b")), Code::VersionConflict);
    site.make(update(Some(2), "b"));
    let delete = |name: &str| Change::DeleteGroup {
        name: name.into(),
        expected_version: None,
    };
    assert_eq!(site.refused(delete("eu")), Code::InvalidRequest);
    site.make(join("de", "lamp-7"));
    let topics = site.writes(delete("de")).into_iter();
    let topics: Vec<String> = topics.map(|(topic, _)| topic).collect();
    assert_eq!(topics, ["config/member/de/lamp-7", "config/group/de"]);
    site.make(delete("de"));
    site.make(delete("eu"));
    assert_eq!(site.refused(delete("eu")), Code::ResourceNotFound);
}

#[test]
fn a_group_that_was_made_by_its_level_can_still_be_declared() {
    let site = Site::with(&[("config/group/eu", json!({"level": "WARN"}))]);
    let (_, document) = site.writes(create_group("eu", None)).remove(0);
    assert_eq!(document["level"], "WARN");
    assert_eq!(document["version"], 1);
}

#[test]
fn a_device_is_declared_tagged_and_deleted_with_all_that_is_retained_of_it() {
    let mut site = Site::with(&[
        ("config/group/eu", json!({})),
        ("config/member/eu/lamp-7", json!({})),
        ("config/member/eu/lamp-8", json!({})),
        (
            "config/override/device/lamp-7",
            json!({"level": "DEBUG", "until": "2026-01-02T04:00:00Z"}),
        ),
    ]);
    let tag = |key: &str, value: Option<&str>| Change::UpdateDevice {
        name: "lamp-7".into(),
        patch: DevicePatch {
            attributes: [(key.to_owned(), value.map(str::to_owned))].into(),
            ..DevicePatch::default()
        },
    };
    site.make(tag("room", Some("attic")));
    site.make(tag("model", Some("x1")));
    site.make(tag("room", None));
    let view = View {
        configuration: &site.configuration,
        devices: &site.devices,
        contacts: &site.contacts,
        now: NOW,
    };
    let document = view.document(ConfigTopic::Device("lamp-7")).unwrap();
    assert_eq!(document["attributes"], json!({"model": "x1"}));
    assert_eq!(document["version"], 3);
    let delete = Change::DeleteDevice {
        name: "lamp-7".into(),
        expected_version: None,
    };
    let topics = site.writes(delete.clone()).into_iter();
    let topics: Vec<String> = topics.map(|(topic, _)| topic).collect();
    let expected = [
        "desired/lamp-7",
        "reported/lamp-7",
        "config/member/eu/lamp-7",
        "config/override/device/lamp-7",
        "config/device/lamp-7",
    ];
    assert_eq!(topics, expected);
    let nobody = Change::DeleteDevice {
        name: "lamp-9".into(),
        expected_version: None,
    };
    assert_eq!(site.refused(nobody), Code::ResourceNotFound);
}

#[test]
fn an_override_has_an_end_in_the_future_and_a_target_that_can_have_one() {
    let site = Site::default();
    let set = |target: Target, until: u64| Change::SetOverride {
        target,
        level: Level::Debug,
        until,
        sources: BTreeMap::new(),
    };
    let (topic, document) = site.writes(set(lamp(), NOW + 60_000_000_000)).remove(0);
    assert_eq!(topic, "config/override/device/lamp-7");
    let expected = json!({"level": "DEBUG", "until": "2026-01-02T03:05:05.000000000Z"});
    assert_eq!(document, expected);
    assert_eq!(site.refused(set(lamp(), NOW)), Code::InvalidRequest);
    let source = Target::Source("app".into());
    assert_eq!(site.refused(set(source, NOW + 1)), Code::InvalidRequest);
    let delete = Change::DeleteOverride { target: lamp() };
    assert_eq!(site.refused(delete), Code::ResourceNotFound);
}

#[test]
fn what_groups_cannot_hold_is_refused() {
    let mut site = Site::default();
    for n in 0..11 {
        site.make(create_group(&format!("g{n}"), None));
    }
    for n in 0..10 {
        site.make(join(&format!("g{n}"), "lamp-7"));
    }
    assert!(site.plan(join("g10", "lamp-7")).is_err());
    site.make(create_group("g0-below", Some("g0")));
    assert!(site.plan(join("g0-below", "lamp-7")).is_err());
    assert_eq!(
        site.refused(join("nowhere", "lamp-7")),
        Code::ResourceNotFound
    );
}

#[test]
fn a_deletion_that_was_cut_short_anywhere_can_be_made_again() {
    let documents = [
        ("config/group/eu", json!({"level": "WARN"})),
        (
            "config/override/group/eu",
            json!({"level": "DEBUG", "until": "2027-01-01T00:00:00Z"}),
        ),
        ("config/member/eu/lamp-7", json!({})),
        ("config/member/eu/lamp-8", json!({})),
        ("config/member/us/lamp-7", json!({})),
        ("config/device/lamp-7", json!({"level": "INFO"})),
    ];
    let group = Change::DeleteGroup {
        name: "eu".into(),
        expected_version: None,
    };
    let device = Change::DeleteDevice {
        name: "lamp-7".into(),
        expected_version: None,
    };
    for (change, left) in [(group, 2), (device, 3)] {
        let steps = Site::with(&documents).plan(change.clone()).unwrap().len();
        assert!(steps >= 4);
        for cut in 0..steps {
            let mut site = Site::with(&documents);
            for write in &site.plan(change.clone()).unwrap()[..cut] {
                site.put(&write.topic, &write.payload());
            }
            site.make(change.clone());
            assert_eq!(site.configuration.all().count(), left, "cut after {cut}");
            assert_eq!(site.refused(change.clone()), Code::ResourceNotFound);
        }
    }
}
