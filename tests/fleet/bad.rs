//! Documents that cannot stand change nothing, and are explained wherever somebody may look.
