//! The schema that is written down, and what is refused before anything is looked up. What is answered is
//! tested over HTTP, with a fleet.

use async_graphql::{Request, SDLExportOptions};

use super::*;

#[test]
fn the_schema_that_is_written_down_is_current() {
    let options = SDLExportOptions::new().prefer_single_line_descriptions();
    let sdl = schema().sdl_with_options(options);
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/api/graphql/schema.graphql"
    );
    if std::env::var_os("THINGLOG_WRITE_SCHEMA").is_some() {
        std::fs::write(file, &sdl).unwrap();
    }
    let written = std::fs::read_to_string(file).unwrap();
    assert!(
        written == sdl,
        "schema.graphql is not what the types say; run this test with THINGLOG_WRITE_SCHEMA=1"
    );
}

/// What is said against a query; everything up to its first look-up is done.
async fn said(query: &str) -> String {
    let answer = match limits::read(query) {
        Ok(document) => {
            let mut request = Request::new(query);
            request.set_parsed_query(document);
            schema().execute(request).await
        }
        Err(refusal) => return refusal.to_string(),
    };
    let errors = answer.errors.iter().map(|error| error.message.as_str());
    errors.collect::<Vec<_>>().join("; ")
}

/// What resolvers say that have nobody to ask: the query was let through.
const LET_THROUGH: &str = "does not exist";

#[tokio::test]
async fn many_searches_in_one_request_are_refused() {
    let aliases = |count: usize, field: &str| {
        let fields = (0..count).map(|n| format!("a{n}: {field} "));
        format!("{{{}}}", fields.collect::<String>())
    };
    for (query, is_too_much) in [
        (aliases(50, "logEvents(limit: 1) { next }"), true),
        (aliases(50, "logCounts { partial }"), true),
        (aliases(50, "nodes(limit: 1) { next }"), true),
        (aliases(5, "logEvents(limit: 100) { items { message } }"), false),
        ("{ logEvents(limit: 1000) { next items { id device source time received level severity message attributes timeEstimated truncated place } } }".into(), false),
        ("{ nodes(limit: 20) { items { listLogEvents(limit: 1) { next } } } }".into(), true),
        ("{ nodes(limit: 1000) { items { name online level why groups type attributes } } }".into(), false),
        (aliases(400, "node(name: \"a\") { name }"), true),
    ] {
        let said = said(&query).await;
        let is_refused = said.contains("too complex") || said.contains("more than");
        assert_eq!(is_refused, is_too_much, "{query}: {said}");
        assert_eq!(said.contains(LET_THROUGH), !is_too_much, "{query}: {said}");
    }
}

#[tokio::test]
async fn fragments_do_not_hide_what_a_request_costs() {
    let spread = "{ ...a ...a } fragment a on Query { x: logEvents(limit: 900) { items { message device source time level id } } y: logEvents(limit: 900) { items { message device source time level id } } z: logEvents(limit: 900) { items { message device source time level id } } }";
    let refused = said(spread).await;
    assert!(refused.contains("too complex"), "{refused}");
    let circle = said("{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }").await;
    assert!(circle.contains("recursion depth"), "{circle}");
}

#[tokio::test]
async fn introspection_is_answered_and_cannot_go_on_for_ever() {
    let kinds = "{ __schema { types { name kind fields { name args { name type { name ofType { name ofType { name ofType { name } } } } } type { name ofType { name ofType { name ofType { name } } } } } } } }";
    assert_eq!(said(kinds).await, "");
    let deep = format!(
        "{{ __schema {{ types {{ fields {{ type {} name {} }} }} }} }}",
        "{ ofType ".repeat(14),
        "}".repeat(14)
    );
    let refused = said(&deep).await;
    assert!(refused.contains("too deep"), "{refused}");
}
