//! What the source of a file's events is called.

use std::{ffi::OsStr, path::Path, sync::Arc};

/// The template unless configured.
pub(crate) const DEFAULT: &str = "{stem}";

/// A name with `{stem}`, `{name}` and `{dir}` in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Naming {
    template: String,
}

impl Naming {
    /// The error says what is wrong with the template.
    pub(crate) fn new(template: &str) -> Result<Naming, String> {
        let mut rest = template.to_owned();
        for known in ["{stem}", "{name}", "{dir}"] {
            rest = rest.replace(known, "x");
        }
        if template.is_empty() || rest.contains(['{', '}']) {
            return Err(format!(
                "source: {template:?}: expected a name, which may have {{stem}}, {{name}} and {{dir}} in it"
            ));
        }
        Ok(Naming {
            template: template.to_owned(),
        })
    }

    /// The source of the file at `path`.
    pub(crate) fn source(&self, path: &Path) -> Arc<str> {
        let text = |part: Option<&OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let named = self
            .template
            .replace("{stem}", &text(path.file_stem()))
            .replace("{name}", &text(path.file_name()))
            .replace("{dir}", &text(path.parent().and_then(Path::file_name)));
        named.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_the_parts_of_a_path() {
        let source = |template: &str| {
            let naming = Naming::new(template).unwrap();
            naming.source(Path::new("/var/log/nginx/access.log"))
        };
        assert_eq!(&*source(DEFAULT), "access");
        assert_eq!(&*source("{dir}-{name}"), "nginx-access.log");
        assert_eq!(&*source("web"), "web");
        for wrong in ["", "{file}", "{stem"] {
            assert!(
                Naming::new(wrong).unwrap_err().contains("{stem}"),
                "{wrong}"
            );
        }
    }
}
