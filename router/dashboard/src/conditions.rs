//! What a request says of the answer it wants: encodings (RFC 9110, 12.5.3) and known versions (13.1.2).

/// Whether `Accept-Encoding` allows gzip.
pub(crate) fn accepts_gzip<'a>(values: impl Iterator<Item = &'a str>) -> bool {
    let mut any = false;
    for item in values.flat_map(|value| value.split(',')) {
        let (coding, weight) = item.split_once(';').unwrap_or((item, ""));
        let weight = weight.trim().strip_prefix("q=").map(str::trim);
        let allowed = weight.is_none_or(|weight| weight.parse().is_ok_and(|q: f32| q > 0.0));
        match coding.trim() {
            coding if coding.eq_ignore_ascii_case("gzip") => return allowed,
            "*" => any = allowed,
            _ => {}
        }
    }
    any
}

/// Whether `If-None-Match` names this version.
pub(crate) fn names<'a>(values: impl Iterator<Item = &'a str>, tag: &str) -> bool {
    let mut items = values.flat_map(|value| value.split(',')).map(str::trim);
    items.any(|item| item == "*" || item.strip_prefix("W/").unwrap_or(item) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_who_takes_it() {
        let takes = |values: &[&'static str]| accepts_gzip(values.iter().copied());
        for values in [
            &["gzip"][..],
            &["deflate, GZIP;q=0.5"],
            &["br", "gzip"],
            &["*"],
        ] {
            assert!(takes(values), "{values:?}");
        }
        for values in [
            &[][..],
            &["identity"],
            &["gzip;q=0, *"],
            &["gzip; q=0.0"],
            &["gzip;q=x"],
            &["*;q=0"],
        ] {
            assert!(!takes(values), "{values:?}");
        }
    }

    #[test]
    fn a_version_is_known_by_its_tag_among_others() {
        let known = |value: &'static str| names([value].into_iter(), "\"a\"");
        for value in ["\"a\"", "\"b\", W/\"a\"", "*"] {
            assert!(known(value), "{value}");
        }
        for value in ["", "a", "\"ab\"", "\"b\""] {
            assert!(!known(value), "{value}");
        }
    }
}
