//! `thinglog`: broker, router and command line in one binary. This crate reads the configuration,
//! puts the parts together and watches over them; it decides nothing about events.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod access;
mod alert;
mod banner;
mod bench;
mod check;
mod cli;
mod client;
mod config;
mod delivery;
mod demo;
mod examples;
mod fleet;
mod line;
mod logging;
mod login;
mod logs;
mod monitor;
mod request;
mod serve;
mod sign_in;
mod supervise;
mod tail;

use std::{
    io::{ErrorKind, Write, stdout},
    path::Path,
    process::ExitCode,
};

use clap::{CommandFactory, Parser};
use cli::{Cli, Command};
use config::{ConfigError, Loaded};
use thinglog_schemas::Topics;
use tokio::sync::watch;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let file = cli.config.as_deref();
    let done = match cli.command {
        Command::Up(up) => serve::up(file, &up),
        Command::Broker(run) => serve::broker(file, &run),
        Command::Router(run) => serve::router(file, &run),
        Command::Tail(tail) => run_tail(file, &tail),
        Command::Logs(args) => match &args.command {
            Some(logs::cli::Command::Request(ask)) => run_request(file, ask),
            Some(logs::cli::Command::Clear(args)) => logs::clear(file, args),
            None => logs::search(file, &args.search),
        },
        Command::Passwd(args) => access::passwd(file, &args),
        Command::Device(command) => run_device(file, &command),
        Command::Key(command) => access::key(file, &command),
        Command::Level(command) => fleet::level(file, &command),
        Command::Group(command) => fleet::group(file, &command),
        Command::History(args) => fleet::history(file, &args),
        Command::Problems(args) => fleet::problems(file, &args),
        Command::Route(command) => delivery::route(file, &command),
        Command::Alert(command) => alert::alert(file, &command),
        Command::Dlq(command) => delivery::dlq(file, &command),
        Command::Tap(args) => delivery::tap(file, &args),
        Command::Top(args) => delivery::top(file, &args),
        Command::Acl(access::cli::Acl::Test(args)) => access::test(file, &args),
        Command::Check(check) => run_check(check.file.as_deref().or(file), check.insecure),
        Command::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Completions { shell } => print_completions(shell),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("thinglog: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The configuration, or an error that lists all that is wrong with it.
fn load(file: Option<&Path>, insecure: bool) -> anyhow::Result<Loaded> {
    config::load(file, insecure).map_err(|errors| refusal(&errors))
}

/// The same for who runs the router: its destinations can be made, as far as that shows without their data.
fn load_to_route(file: Option<&Path>, insecure: bool) -> anyhow::Result<Loaded> {
    let loaded = load(file, insecure)?;
    match loaded.check_destinations() {
        errors if errors.is_empty() => Ok(loaded),
        errors => Err(refusal(&errors)),
    }
}

fn refusal(errors: &[ConfigError]) -> anyhow::Error {
    let complaint = check::complaint(errors);
    anyhow::anyhow!(
        "the configuration cannot be used:\n{}",
        complaint.trim_end()
    )
}

fn run_check(file: Option<&Path>, insecure: bool) -> anyhow::Result<ExitCode> {
    let checked = config::load(file, insecure).and_then(|mut loaded| {
        let wrong: Vec<_> = [
            loaded.check_listeners(),
            loaded.check_files(),
            loaded.check_keys(),
        ]
        .into_iter()
        .filter_map(Result::err)
        .chain(loaded.check_destinations())
        .collect();
        wrong.is_empty().then_some(loaded).ok_or(wrong)
    });
    match checked {
        Ok(loaded) => {
            say(&check::summary(&loaded));
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            eprint!("{}", check::complaint(&errors));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn run_tail(file: Option<&Path>, args: &cli::Tail) -> anyhow::Result<ExitCode> {
    let loaded = load(file, true)?;
    let topics = Topics::new(&loaded.config.router.root)?;
    let options = tail::options(args, &topics, &loaded.broker())?;
    let (subscribed, _) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::select! {
            done = tail::run(options, subscribed) => done,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn run_request(file: Option<&Path>, args: &request::cli::Ask) -> anyhow::Result<ExitCode> {
    let loaded = load(file, true)?;
    let topics = Topics::new(&loaded.config.router.root)?;
    let options = request::options(args, topics, &loaded.broker())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(request::run(options))
}

/// The fleet is asked of the router, tokens stand in a file of the broker.
fn run_device(file: Option<&Path>, command: &access::cli::Device) -> anyhow::Result<ExitCode> {
    use access::cli::Device;

    match command {
        Device::List(args) if args.file.is_some() => {
            eprintln!("thinglog: `device list --file` lists tokens: that is `device tokens` now");
            access::list_tokens(file, args.file.as_ref(), args.api.json)
        }
        Device::List(args) => fleet::list_devices(file, args),
        Device::Show(args) => fleet::show_device(file, args),
        Device::Tag(args) => fleet::tag(file, args),
        Device::Delete(args) => fleet::delete_device(file, args),
        Device::Tokens { common } => access::list_tokens(file, common.file.as_ref(), common.json),
        Device::Add {
            name,
            replace,
            common,
        } => access::add_token(file, name, *replace, common),
        Device::Remove { name, common } => access::remove_token(file, name, common),
    }
}

fn print_completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "thinglog", &mut script);
    say(&String::from_utf8_lossy(&script));
    Ok(ExitCode::SUCCESS)
}

/// Prints what a command was asked for. Whoever reads may be gone, as with `| head`: that is no failure of
/// ours. Any other is, as with `> FILE` on a full disk, and the end.
fn say(text: &str) {
    let mut stdout = stdout().lock();
    let done = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match done {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("thinglog: cannot write to standard output: {error}");
            std::process::exit(1);
        }
        _ => {}
    }
}

/// Prints what is good to know. Whether anybody reads it changes nothing.
fn mention(text: &str) {
    let _ = stdout().write_all(text.as_bytes());
}
