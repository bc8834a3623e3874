use proptest::prelude::*;
use regex::Regex;

use super::{value::versions, *};

/// lamp-7 of type lamp, in eu and its parent, which says `model = y9` of itself.
fn matches(text: &str) -> bool {
    let query = Query::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let pairs = |pairs: &[(&str, &str)]| {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        owned.collect::<Attributes>()
    };
    let operator = pairs(&[
        ("model", "x1"),
        ("site", "Lab 1"),
        ("a b", "c"),
        ("in", "5"),
    ]);
    let reported = pairs(&[
        ("model", "y9"),
        ("version", "2.9.1"),
        ("load", "0.25"),
        ("os", "Linux"),
    ]);
    query.matches(&Thing {
        name: "lamp-7",
        kind: Some("lamp"),
        operator: Some(&operator),
        reported: Some(&reported.iter().collect()),
        online: Some(true),
        any_group: &|wanted| ["eu", "world"].into_iter().any(wanted),
    })
}

#[test]
fn conditions_mean_what_the_page_says() {
    for text in [
        r#"model = "x1""#,
        "model = x1",
        r#"model != "y9""#,
        r#"missing != "y9""#,
        r#"version < "2.10""#,
        r#"version >= "2.9.1" and version <= "2.9.1""#,
        r#"version > "2.9.1-rc1""#,
        "load < 0.3 and load > 0.1 and load = 0.25",
        r#"name ~ "lamp-*""#,
        r#"name ~ "l??p*7""#,
        "name ~ /^lamp-[0-9]+$/",
        r#"site in ("Lab 1", "attic")"#,
        "type in [lamp]",
        "exists site and exists(version) and not exists colour",
        "online",
        "online = true",
        "not (online = false)",
        r#"group = "eu" and group = world"#,
        r#"attributes."a b" = "c""#,
        "attributes.in = 5",
        r#"os = "Linux" model = x1"#,
        "NOT model = y9 AND (model = y9 OR model = x1)",
        "missing = 1 or model = x1 and online",
        // AWS IoT's.
        "attributes.model:X1 AND thingName:lamp*",
        "thingName:LAMP-7",
        "thingName:*7",
        "thingName:lamp\\-7",
        r#"attributes.site:"lab 1""#,
        "thingTypeName:lamp connectivity.connected:true",
        "thingGroupNames:(mars OR eu*)",
        "attributes.load:>0.2 attributes.load:<=0.25",
        "attributes.load:[0.2 TO 0.25] AND attributes.load:[* TO 1} AND attributes.load:{0 TO *]",
        "attributes.os:* AND -attributes.os:windows",
        "thingName:(lamp* AND -*8)",
        r#"attributes.version:[2.8.0 TO "2.10"]"#,
    ] {
        assert!(matches(text), "{text}");
    }
    for text in [
        r#"model = "X1""#,
        r#"model = "y9""#,
        r#"missing = "y9""#,
        r#"missing < "9""#,
        r#"not missing != "9""#,
        "os < 5",
        r#"version < "2.9.1""#,
        r#"version > "2.10""#,
        r#"name ~ "lamp""#,
        r#"name ~ "*-""#,
        "name ~ /^amp/",
        "not online",
        "group = mars",
        "group != eu",
        "attributes.load:{0.25 TO 1]",
        "attributes.load:[0 TO 0.25}",
        "attributes.colour:*",
        "-thingName:lamp*",
        "model = y9 or missing = 1",
    ] {
        assert!(!matches(text), "{text}");
    }
}

#[test]
fn what_must_not_count_does_not() {
    let thing = Thing {
        name: "lamp-7",
        kind: None,
        operator: None,
        reported: None,
        online: None,
        any_group: &|_| false,
    };
    for text in ["online", "online = false", "model = x1", "group = eu"] {
        assert!(!Query::parse(text).unwrap().matches(&thing), "{text}");
    }
}

#[test]
fn errors_say_where_and_what_would_be_right() {
    let deep = format!("{}online{}", "(".repeat(17), ")".repeat(17));
    let wide = vec!["online"; 33].join(" ");
    let long = format!("name = {}", "x".repeat(1000));
    for (text, at, reason) in [
        ("", 1, "expected a field"),
        ("   ", 4, "expected a field"),
        ("model", 6, "expected =, !=, <"),
        ("model x1", 7, "expected =, !=, <"),
        ("model =", 8, "expected a value"),
        ("model = \"x1", 9, "quotes are not closed"),
        ("model = x1 and", 15, "expected a field"),
        ("model = x1 or or", 15, "expected a field instead of `or`"),
        ("(model = x1", 12, "closes the one at character 1"),
        ("model = x1)", 11, "this bracket closes nothing"),
        ("model in x1", 10, "a list in brackets"),
        ("model in (x1 x2)", 14, "expected `,` or `)`"),
        ("model ~ x*", 9, "a pattern like \"x*\""),
        ("model ~ /x", 9, "not closed by /"),
        ("model ~ /(/", 9, "no regular expression: unclosed group"),
        ("lamp*", 5, "expected =, !=, <"),
        ("\"lamp\"", 1, "expected a field"),
        (
            "shadow.reported.x:1",
            1,
            "there is no field shadow.reported.x",
        ),
        ("thingName:", 11, "expected a value"),
        ("attributes.a:[1 5]", 17, "expected `TO`"),
        ("attributes.a:[1 TO 5", 21, "expected `]`"),
        ("attributes.a:>b*", 15, "without wildcards"),
        ("attributes. = 5", 12, "the name of an attribute"),
        (&deep, 17, "at most 16 deep"),
        (&wide, 225, "at most 32 values"),
        (&long, 1001, "at most 1000 characters"),
        ("name ~ /\\w{500}{500}/", 8, "no regular expression"),
    ] {
        let error = Query::parse(text).unwrap_err();
        assert!(error.reason.contains(reason), "{text}: {error}");
        assert_eq!(error.at, at, "{text}: {error}");
    }
}

#[test]
fn versions_are_ordered_as_their_makers_do() {
    let ordered = [
        "1",
        "1.2",
        "1.10",
        "v2.0-alpha",
        "2.0-rc.2",
        "2.0-rc.10",
        "2.0",
        "2.0.1",
        "2.0.1a",
        "10",
    ];
    for pair in ordered.windows(2) {
        assert!(versions(pair[0], pair[1]).is_lt(), "{pair:?}");
        assert!(versions(pair[1], pair[0]).is_gt(), "{pair:?}");
    }
    assert!(versions("2.0", "2.0.0+build5").is_eq());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_within_it(text in "[a-z:=~<>()\"/\\[\\]* andortTO.,\\\\-]{0,60}") {
        match Query::parse(&text) {
            Ok(query) => {
                matches(query.text());
            }
            Err(error) => prop_assert!(error.at <= text.chars().count() + 1),
        }
    }

    #[test]
    fn a_pattern_fits_what_a_regular_expression_does(
        pattern in "[ab*?]{0,8}", text in "[ab]{0,10}"
    ) {
        let regex = pattern.replace('*', ".*").replace('?', ".");
        let expected = Regex::new(&format!("^(?:{regex})$")).unwrap().is_match(&text);
        prop_assert_eq!(Glob::of(&pattern).matches(&text), expected);
    }

    #[test]
    fn versions_have_one_order(a in "[0-2a.-]{0,5}", b in "[0-2a.-]{0,5}", c in "[0-2a.-]{0,5}") {
        prop_assert_eq!(versions(&a, &b), versions(&b, &a).reverse());
        if versions(&a, &b).is_le() && versions(&b, &c).is_le() {
            prop_assert!(versions(&a, &c).is_le(), "{} {} {}", a, b, c);
        }
    }
}
