//! Placeholder head, replaced by the room.
