//! The statements. Pure.

/// The columns that rows have.
pub(super) const COLUMNS: &str = "id, time, received, device, source, severity, level, message, \
                                  attributes, time_estimated, truncated";

/// What rows are inserted with.
pub(super) fn insert(database: &str, table: &str) -> String {
    format!("INSERT INTO `{database}`.`{table}` ({COLUMNS}) FORMAT JSONEachRow")
}

/// What makes the table. Events without an id are alike when all of the key is.
pub(super) fn create(database: &str, table: &str, engine: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS `{database}`.`{table}` (\
         id String, \
         time DateTime64(9, 'UTC') CODEC(Delta, ZSTD), \
         received DateTime64(9, 'UTC') CODEC(Delta, ZSTD), \
         device LowCardinality(String), \
         source LowCardinality(String), \
         severity UInt8, \
         level LowCardinality(String), \
         message String CODEC(ZSTD), \
         attributes Map(LowCardinality(String), String) CODEC(ZSTD), \
         time_estimated Bool, \
         truncated Bool\
         ) ENGINE = {engine} \
         PARTITION BY toYYYYMM(time) \
         ORDER BY (device, time, id, source, cityHash64(message, toString(attributes))) \
         SETTINGS non_replicated_deduplication_window = 10000"
    )
}
