//! What must happen once per fleet and not once per destination: unreadable payloads go into
//! [`quarantine`], holes in a device's numbering are found ([`gaps`]) and declared as events, devices
//! are noted. A consumer part like the destinations, with a stage of its own ([`stage`]).

pub(crate) mod gaps;
pub(crate) mod quarantine;
pub(crate) mod stage;
