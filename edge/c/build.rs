//! Gives the shared library its name: what programs that were linked with it ask the system for. The
//! number in it is that of the interface; it grows when programs have to be compiled anew.

#![allow(clippy::print_stdout)] // how a build script answers

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let system = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let name = match system.as_str() {
        "linux" | "freebsd" | "netbsd" | "openbsd" | "dragonfly" => "libthinglog.so.0",
        // Takes no numbers behind the name.
        "android" => "libthinglog.so",
        _ => return,
    };
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,{name}");
}
