use std::path::Path;

#[test]
fn whatever_happened_to_its_files_a_journal_opens_or_says_why_not() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/journal");
    crate::fuzz::run("journal", &corpus, crate::fuzz::recovery);
}
