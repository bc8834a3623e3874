//! The statements. Pure.

use super::encode::COLUMNS;

/// What rows are inserted with; `table` is quoted.
pub(super) fn insert(table: &str) -> String {
    let names: Vec<&str> = COLUMNS.iter().map(|(name, ..)| *name).collect();
    let arrays: Vec<String> = COLUMNS
        .iter()
        .enumerate()
        .map(|(at, (_, element, _))| format!("${}::{}[]", at + 1, element.name()))
        .collect();
    format!(
        "INSERT INTO {table} ({}) SELECT * FROM unnest({}) ON CONFLICT DO NOTHING",
        names.join(", "),
        arrays.join(", ")
    )
}

/// Whether the table is there; a user without rights to it may ask as well.
pub(super) fn is_there(table: &str) -> String {
    format!("SELECT 1 WHERE to_regclass('{table}') IS NOT NULL")
}

/// Whether the database has TimescaleDB.
pub(super) const HAS_HYPERTABLES: &str =
    "SELECT 1 FROM pg_catalog.pg_proc WHERE proname = 'create_hypertable' LIMIT 1";

/// What makes the table; one transaction, as every text of several statements is.
pub(super) fn create(table: &str, hypertable: bool) -> String {
    let unique = match hypertable {
        true => "id, time",
        false => "id",
    };
    let mut text = format!(
        "CREATE TABLE IF NOT EXISTS {table} (
            id text,
            time timestamptz NOT NULL,
            received timestamptz NOT NULL,
            device text NOT NULL,
            source text NOT NULL,
            severity smallint NOT NULL,
            level text NOT NULL,
            message text NOT NULL,
            attributes jsonb NOT NULL,
            time_estimated boolean NOT NULL,
            truncated boolean NOT NULL,
            UNIQUE ({unique})
        );
        CREATE INDEX ON {table} (device, time);
        CREATE INDEX ON {table} (time);"
    );
    if hypertable {
        text.push_str(&format!(
            "SELECT create_hypertable('{table}', 'time', if_not_exists => true);"
        ));
    }
    text
}
