//! Claims about the whole journal, on real files.

mod basics;
