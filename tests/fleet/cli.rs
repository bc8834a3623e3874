//! What the command line says when it is refused.
