//! What the device says of itself: from the configuration, from files that something else writes
//! (`/etc/os-release`, a provisioning script's), and from the environment.

use std::{collections::BTreeMap, fs};

use thinglog_schemas::Attributes;

use super::{Settings, error::Wrong};

/// Most attributes of a device; a report is a single message.
const MAX_ATTRIBUTES: usize = 100;
/// The longest value, bytes.
const MAX_VALUE: usize = 4096;
/// The largest file that is read for attributes, bytes.
const MAX_FILE: u64 = 64 << 10;

/// All attributes; what the configuration says itself stands above files, and files above the
/// environment.
pub(super) fn gather(
    settings: &Settings,
    variables: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Vec<Wrong>> {
    let mut gathered = BTreeMap::new();
    for (name, value) in variables {
        if settings
            .attributes_env
            .iter()
            .any(|pattern| matches(pattern, name))
        {
            gathered.insert(name.clone(), value.clone());
        }
    }
    let mut wrong = Vec::new();
    for (at, path) in settings.attributes_files.iter().enumerate() {
        let read = fs::metadata(path)
            .map_err(|error| error.to_string())
            .and_then(|metadata| match metadata.len() > MAX_FILE {
                true => Err(format!("is larger than {MAX_FILE} bytes")),
                false => fs::read_to_string(path).map_err(|error| error.to_string()),
            });
        match read.and_then(|text| parse(&text)) {
            Ok(attributes) => gathered.extend(attributes),
            Err(reason) => {
                let key = format!("attributes_files[{at}]");
                wrong.push((key, format!("{}: {reason}", path.display())));
            }
        }
    }
    gathered.extend(settings.attributes.clone());
    if let Some((key, _)) = gathered.iter().find(|(_, value)| value.len() > MAX_VALUE) {
        let reason = format!("the value of {key:?} is longer than {MAX_VALUE} bytes");
        wrong.push(("attributes".to_owned(), reason));
    }
    if gathered.len() > MAX_ATTRIBUTES {
        let reason = format!("{} of them, at most {MAX_ATTRIBUTES}", gathered.len());
        wrong.push(("attributes".to_owned(), reason));
    }
    match wrong.is_empty() {
        true => Ok(gathered),
        false => Err(wrong),
    }
}

/// Those that every event gets.
pub(super) fn on_events(settings: &Settings, all: &BTreeMap<String, String>) -> Attributes {
    let wanted = |key: &str| {
        settings
            .event_attributes
            .iter()
            .any(|name| matches(name, key))
    };
    let wanted = all.iter().filter(|(key, _)| wanted(key));
    wanted
        .map(|(key, value)| (key.clone(), value.clone().into()))
        .collect()
}

/// `*` at the end stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(begins) => name.starts_with(begins),
        None => name == pattern,
    }
}

/// `KEY=value` a line, as in os-release(5) and systemd's `EnvironmentFile`: blank lines and comments
/// are skipped, values may be quoted.
fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut attributes = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((key, value)) = line
            .split_once('=')
            .filter(|(key, _)| !key.trim().is_empty())
        else {
            return Err(format!("line {} is not KEY=value", at + 1));
        };
        attributes.insert(key.trim().to_owned(), unquote(value.trim()));
    }
    Ok(attributes)
}

fn unquote(value: &str) -> String {
    let within = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(value) = within('\'') {
        return value.to_owned();
    }
    let Some(value) = within('"') else {
        return value.to_owned();
    };
    let mut unquoted = String::with_capacity(value.len());
    let mut escaped = false;
    for c in value.chars() {
        if escaped || c != '\\' {
            unquoted.push(c);
        }
        escaped = !escaped && c == '\\';
    }
    unquoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_os_release_is_written() {
        let text = "# who\nNAME=\"Debian \\\"GNU\\\"\"\n\nID=debian\nexport SITE='eu 1'\nEMPTY=\n";
        let parsed = parse(text).unwrap();
        assert_eq!(parsed["NAME"], "Debian \"GNU\"");
        assert_eq!(parsed["ID"], "debian");
        assert_eq!(parsed["SITE"], "eu 1");
        assert_eq!(parsed["EMPTY"], "");
        assert!(parse("ID=debian\nwhat\n").unwrap_err().contains("line 2"));
    }

    #[test]
    fn the_configuration_stands_above_files_and_files_above_the_environment() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "SITE_A=file\nSITE_B=file\n").unwrap();
        let settings = Settings {
            attributes: BTreeMap::from([("SITE_A".into(), "own".into())]),
            attributes_files: vec![file.path().to_owned()],
            attributes_env: vec!["SITE_*".into(), "EXACT".into()],
            event_attributes: vec!["SITE_C".into()],
            ..Settings::default()
        };
        let variable = |name: &str| (name.to_owned(), "environment".to_owned());
        let names = ["SITE_A", "SITE_B", "SITE_C", "EXACT", "EXACTLY", "HOME"];
        let variables = names.into_iter().map(variable).collect();
        let gathered = gather(&settings, &variables).unwrap();
        let expected = [
            ("EXACT", "environment"),
            ("SITE_A", "own"),
            ("SITE_B", "file"),
            ("SITE_C", "environment"),
        ];
        let gathered_pairs = gathered
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        assert!(gathered_pairs.eq(expected), "{gathered:?}");
        let on_events = on_events(&settings, &gathered);
        assert_eq!(
            serde_json::Value::from(on_events),
            serde_json::json!({"SITE_C": "environment"})
        );
    }
}
