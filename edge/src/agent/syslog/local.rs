//! Sockets in the file system: /dev/log and the like. One that a dead program left behind is
//! replaced, one that a program listens on is not.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::{UnixDatagram, UnixStream},
    },
    path::{Path, PathBuf},
};

/// The path of a bound socket, removed at the end unless somebody replaced it.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    inode: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "a socket was left behind");
        }
    }
}

/// Binds a socket at `path`, where everybody may write to it.
pub(super) fn bind<T>(
    path: &Path,
    bind: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<(T, Place)> {
    make_room(path)?;
    let socket = bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    let place = Place {
        path: path.to_owned(),
        inode: fs::symlink_metadata(path)?.ino(),
    };
    Ok((socket, place))
}

fn make_room(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.is_socket() && !found.is_symlink() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file of that name, which is no socket",
        ));
    }
    if is_alive(path) {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another program receives there (systemd-journald or a syslog daemon): stop it, or follow the journal instead",
        ));
    }
    fs::remove_file(path)
}

/// Whether anybody listens: connecting to what a dead program left is refused.
fn is_alive(path: &Path) -> bool {
    let datagram = UnixDatagram::unbound().and_then(|socket| socket.connect(path));
    datagram.is_ok() || UnixStream::connect(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        drop(UnixDatagram::bind(&path).unwrap());
        let (socket, place) = bind(&path, |path| UnixDatagram::bind(path)).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666);
        let error = bind(&path, |path| UnixDatagram::bind(path)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("journal"), "{error}");
        drop((socket, place));
        assert!(!path.exists());
    }

    #[test]
    fn a_link_to_nowhere_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &path).unwrap();
        drop(bind(&path, |path| UnixDatagram::bind(path)).unwrap());
        fs::write(&path, "precious").unwrap();
        let error = bind(&path, |path| UnixDatagram::bind(path)).unwrap_err();
        assert!(error.to_string().contains("no socket"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_socket_that_somebody_else_put_there_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (_socket, place) = bind(&path, |path| UnixDatagram::bind(path)).unwrap();
        fs::remove_file(&path).unwrap();
        // Keeps the inode's number from being given out again.
        let _other = UnixDatagram::bind(dir.path().join("other")).unwrap();
        let _theirs = UnixDatagram::bind(&path).unwrap();
        drop(place);
        assert!(path.exists());
    }
}
