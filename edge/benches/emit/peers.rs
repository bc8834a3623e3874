//! What a publisher may find where its broker should be, and a disk without room.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};

/// A network that swallows everything: a listener whose queue is full answers no SYN any more. Ends with
/// what is returned.
pub(crate) fn black_hole() -> (SocketAddr, impl Sized) {
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
    bind(&listener, &loopback).unwrap();
    listen(&listener, 0).unwrap();
    let address: SocketAddr = getsockname(&listener).unwrap().try_into().unwrap();
    let patience = Duration::from_millis(300);
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, patience) {
        waiting.push(stream);
    }
    (address, (listener, waiting))
}

/// A peer that takes connections, says CONNACK when `greets`, and reads nothing.
pub(crate) fn mute(greets: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            if greets {
                // MQTT 5: CONNACK, no session, success, no properties.
                let _ = stream.write_all(&[0x20, 3, 0, 0, 0]);
            }
            held.push(stream);
        }
    });
    address
}

/// A file system of `bytes` at `path`; it goes with what is returned. `None` for who may not mount.
pub(crate) fn small_disk(path: &Path, bytes: u64) -> Option<impl Sized> {
    struct Mounted(std::path::PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let size = format!("size={bytes}");
    let mut command = Command::new("mount");
    command
        .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
        .arg(path);
    let mounted = command.output().is_ok_and(|output| output.status.success());
    mounted.then(|| Mounted(path.to_owned()))
}
