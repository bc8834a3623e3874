//! The container source against real engines: a dockerd and a Podman of its own, in temporary folders,
//! with an image made of busybox alone.

#![allow(clippy::unwrap_used)]

mod support {
    pub(crate) mod agent;
    #[path = "mod.rs"]
    pub(crate) mod broker;
}

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use support::{
    agent::{self, Program, Running},
    broker::{Broker, have},
};
use thinglog_edge::agent::{DockerOptions, NameFrom, StateDir, run_docker_source};
use thinglog_schemas::{Severity, batch::Entry};

/// An engine may take its time to start where others work as well.
const STARTS: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Docker,
    Podman,
}

struct Engine {
    kind: Kind,
    dir: tempfile::TempDir,
    child: Child,
}

impl Engine {
    /// A running engine with the image `busybox`; `None` where there can be none, which is said.
    fn start() -> Option<Engine> {
        Engine::of(Kind::Docker)
    }

    fn of(kind: Kind) -> Option<Engine> {
        let there = match kind {
            Kind::Docker => have("dockerd", "docker.io") && have("docker", "docker.io"),
            Kind::Podman => have("podman", "podman") && have("runc", "runc"),
        };
        if !there || !have_static_busybox() {
            return None;
        }
        if !rustix::process::getuid().is_root() {
            eprintln!("SKIPPED: only root can run an engine");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("tl").tempdir().unwrap();
        let child = daemon(kind, dir.path());
        let engine = Engine { kind, dir, child };
        if let Err(log) = engine.wait_until_up() {
            eprintln!("SKIPPED: the engine does not run here: {log}");
            return None;
        }
        engine.import_busybox();
        Some(engine)
    }

    fn image(&self) -> &'static str {
        match self.kind {
            Kind::Docker => "busybox",
            Kind::Podman => "localhost/busybox:latest",
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// The end of its log when it does not start.
    fn wait_until_up(&self) -> Result<(), String> {
        let deadline = Instant::now() + STARTS;
        while !self.run(&["version"]).status.success() {
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                let lines: Vec<&str> = log.lines().rev().take(5).collect();
                return Err(lines.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn import_busybox(&self) {
        let root = self.dir.path().join("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::copy(busybox(), root.join("bin/busybox")).unwrap();
        std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
        let tar = self.dir.path().join("image.tar");
        let packed = Command::new("tar")
            .args([
                "-C",
                root.to_str().unwrap(),
                "-cf",
                tar.to_str().unwrap(),
                ".",
            ])
            .status();
        assert!(packed.unwrap().success());
        self.docker(&["import", tar.to_str().unwrap(), "busybox"]);
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = match self.kind {
            Kind::Docker => {
                let mut command = Command::new("docker");
                command.env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
                command
            }
            Kind::Podman => podman(self.dir.path()),
        };
        command.args(arguments).output().unwrap()
    }

    #[track_caller]
    fn docker(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a container that runs a script.
    fn container(&self, name: &str, options: &[&str], script: &str) {
        let start = ["run", "-d", "--net", "none", "--name", name];
        let command = [self.image(), "/bin/sh", "-c", script];
        self.docker(&[&start[..], options, &command].concat());
    }

    fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }

    fn restart(&mut self) {
        self.stop();
        self.child = daemon(self.kind, self.dir.path());
        self.wait_until_up().unwrap();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let ids = self.run(&["ps", "-aq"]).stdout;
        let ids = String::from_utf8_lossy(&ids).into_owned();
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            self.run(&[&["rm", "-f"], &ids[..]].concat());
        }
        self.stop();
    }
}

/// Podman with everything in `dir`. What this machine may not be able to do is not asked for.
fn podman(dir: &Path) -> Command {
    let at = |name: &str| dir.join(name).display().to_string();
    let settings = "[containers]\nlog_driver = \"k8s-file\"\n\
                    default_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n\
                    [engine]\nruntime = \"runc\"\nevents_logger = \"file\"\n\
                    cgroup_manager = \"cgroupfs\"\n";
    fs::write(dir.join("containers.conf"), settings).unwrap();
    let mut command = Command::new("podman");
    command
        .env("CONTAINERS_CONF", at("containers.conf"))
        .args(["--root", &at("data"), "--runroot", &at("exec")])
        .args(["--tmpdir", &at("tmp"), "--storage-driver", "vfs"]);
    command
}

fn daemon(kind: Kind, dir: &Path) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .unwrap();
    let at = |name: &str| dir.join(name).display().to_string();
    if kind == Kind::Podman {
        return podman(dir)
            .args(["system", "service", "--time=0"])
            .arg(format!("unix://{}", at("docker.sock")))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
    }
    Command::new("dockerd")
        .args(["--data-root", &at("data"), "--exec-root", &at("exec")])
        .args(["-H", &format!("unix://{}", at("docker.sock"))])
        .args(["--pidfile", &at("pid"), "--storage-driver", "vfs"])
        .args(["--iptables=false", "--ip6tables=false", "--bridge=none"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn busybox() -> PathBuf {
    let found = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    found
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_default()
}

/// In an image of its own, busybox finds no libraries: it must need none.
fn have_static_busybox() -> bool {
    if !have("busybox", "busybox-static") {
        return false;
    }
    let binary = fs::read(busybox()).unwrap();
    let dynamic = binary.windows(8).take(4096).any(|part| part == b"/ld-linu");
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(
        !dynamic || !ci,
        "busybox is not static (Debian: busybox-static)"
    );
    if dynamic {
        eprintln!("SKIPPED: busybox is not static (Debian: busybox-static)");
    }
    !dynamic
}

fn start(broker: &Broker, options: DockerOptions) -> Running {
    agent::run(
        agent::publisher(broker.address),
        async move |sink, cancel| run_docker_source(sink, options, cancel).await,
    )
}

fn events(broker: &Broker, count: usize) -> Vec<(String, Entry)> {
    broker.wait(|state| Some(state.events()).filter(|events| events.len() >= count))
}

fn messages(events: &[(String, Entry)], source: &str, stream: &str) -> Vec<String> {
    let of = |(from, event): &&(String, Entry)| {
        from == source && event.attributes.get("stream").is_some_and(|s| s == stream)
    };
    let found = events.iter().filter(of);
    found.map(|(_, event)| event.message.clone()).collect()
}

fn numbered(word: &str, numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    let line = |number| format!("{word} {number}");
    numbers.into_iter().map(line).collect()
}

#[test]
fn containers_are_followed_with_what_they_are_and_only_those_that_are_wanted() {
    containers_are_followed(Kind::Docker);
}

#[test]
fn containers_of_podman_are_followed_with_what_they_are() {
    containers_are_followed(Kind::Podman);
}

fn containers_are_followed(kind: Kind) {
    let Some(engine) = Engine::of(kind) else {
        return;
    };
    let broker = Broker::start();
    // One that ended before, one that runs, one that starts later.
    let labels = ["-l", "com.docker.compose.service=web", "-l", "site=north"];
    engine.container("before", &labels, "echo out; echo 'ERROR err' >&2");
    engine.docker(&["wait", "before"]);
    engine.container("terminal", &["-t"], "echo tty; exec sleep 600");
    engine.container("unwanted", &[], "echo unwanted");
    let running = start(
        &broker,
        DockerOptions {
            socket: engine.socket(),
            exclude: vec!["un*".to_owned().into()],
            labels: vec!["site".into()],
            ..DockerOptions::default()
        },
    );
    events(&broker, 3);
    let long = r#"head -c 40000 /dev/zero | tr '\0' x; echo; echo '{"level":"warn","msg":"hot"}'; printf last"#;
    engine.container(
        "later",
        &[],
        &format!("export PATH=/bin; alias; busybox --install /bin; {long}"),
    );
    let all = events(&broker, 6);
    running.stop();

    assert_eq!(messages(&all, "web", "stdout"), ["out"]);
    assert_eq!(messages(&all, "web", "stderr"), ["ERROR err"]);
    assert_eq!(messages(&all, "terminal", "stdout"), ["tty"]);
    let later = messages(&all, "later", "stdout");
    assert_eq!(later[0].len(), 40_000);
    assert_eq!(later[1..], ["hot", "last"]);
    assert_eq!(all.len(), 6);
    for (source, event) in &all {
        let expected = match &*event.message {
            "ERROR err" => Severity::ERROR,
            "hot" => Severity::WARN,
            _ => Severity::INFO,
        };
        assert_eq!(event.severity, expected, "{}", event.message);
        assert_eq!(event.attributes["container.image"], engine.image());
        if source == "web" {
            assert_eq!(event.attributes["container.name"], "before");
            assert_eq!(event.attributes["container.label.site"], "north");
        }
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        assert!(now - event.time < 120_000_000_000);
    }
}

/// Numbers on stdout and every third on stderr, now and then a pause.
const NUMBERS: &str = r#"i=$FROM; while [ $i -lt $TO ]; do echo "out $i"
[ $((i % 3)) = 0 ] && echo "err $i" >&2
[ $((i % 100)) = 0 ] && busybox sleep 0.05
i=$((i + 1)); done; [ -z "$STAY" ] || exec busybox sleep 600"#;

#[test]
fn restarts_of_agent_container_and_engine_neither_repeat_nor_miss_a_line() {
    let Some(mut engine) = Engine::start() else {
        return;
    };
    let broker = Broker::start();
    let state = tempfile::tempdir().unwrap();
    let options = |engine: &Engine| DockerOptions {
        socket: engine.socket(),
        state: Some(StateDir::open(state.path()).unwrap()),
        source_from: NameFrom::Name,
        ..DockerOptions::default()
    };
    let env = ["-e", "FROM=0", "-e", "TO=3000", "-e", "PATH=/bin"];
    let running = start(&broker, options(&engine));
    engine.container("count", &env, NUMBERS);
    // The agent, again and again, while the container goes on.
    let mut running = Some(running);
    for part in 1..4 {
        events(&broker, 700 * part);
        running.take().unwrap().stop();
        running = Some(start(&broker, options(&engine)));
    }
    let all = events(&broker, 4000);
    assert_eq!(messages(&all, "count", "stdout"), numbered("out", 0..3000));
    assert_eq!(
        messages(&all, "count", "stderr"),
        numbered("err", (0..3000).step_by(3))
    );

    // The container says it all once more.
    engine.docker(&["start", "count"]);
    let all = events(&broker, 8000);
    let twice = [numbered("out", 0..3000), numbered("out", 0..3000)].concat();
    assert_eq!(messages(&all, "count", "stdout"), twice);

    // The engine; what another container says while the agent is away is read later.
    engine.restart();
    running.take().unwrap().stop();
    let env = ["-e", "FROM=0", "-e", "TO=300", "-e", "PATH=/bin"];
    engine.container("other", &env, NUMBERS);
    engine.docker(&["wait", "other"]);
    let running = start(&broker, options(&engine));
    let all = events(&broker, 8400);
    assert_eq!(messages(&all, "other", "stdout"), numbered("out", 0..300));

    // The engine under an agent that stays.
    engine.restart();
    engine.docker(&["start", "other"]);
    let all = events(&broker, 8800);
    running.stop();
    assert_eq!(all.len(), 8800);
    let ids: BTreeSet<String> = all
        .iter()
        .map(|(_, event)| event.attributes["container.id"].to_string())
        .collect();
    assert_eq!(ids.len(), 2);
}

#[test]
fn an_agent_that_is_killed_goes_on_where_its_spool_ends() {
    killed_agents_go_on(Kind::Docker);
}

#[test]
fn an_agent_of_podman_that_is_killed_goes_on_where_its_spool_ends() {
    killed_agents_go_on(Kind::Podman);
}

fn killed_agents_go_on(kind: Kind) {
    let Some(engine) = Engine::of(kind) else {
        return;
    };
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let source = format!(
        "kind = \"docker\"\nsocket = \"{}\"\nsource_from = \"name\"",
        engine.socket().display()
    );
    let env = ["-e", "FROM=0", "-e", "TO=3000", "-e", "PATH=/bin"];
    engine.container("count", &env, NUMBERS);
    for part in 1..6 {
        let agent = Program::start(dir.path(), broker.address, &source);
        events(&broker, 500 * part);
        drop(agent);
    }
    let agent = Program::start(dir.path(), broker.address, &source);
    let all = events(&broker, 4000);
    drop(agent);
    assert_eq!(messages(&all, "count", "stdout"), numbered("out", 0..3000));
    let third = (0..3000).step_by(3);
    assert_eq!(messages(&all, "count", "stderr"), numbered("err", third));
}

#[test]
fn lines_of_a_container_that_belong_together_are_one_event_through_kills() {
    let Some(engine) = Engine::start() else {
        return;
    };
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let source = format!(
        "kind = \"docker\"\nsocket = \"{}\"\nsource_from = \"name\"\nmultiline = \"java\"",
        engine.socket().display()
    );
    let env = ["-e", "PATH=/bin"];
    let traces = r#"i=0; while [ $i -lt 120 ]; do echo "ERROR $i"; echo "java.lang.Error: $i"; echo "	at a.B.c(B.java:$i)"
        busybox sleep 0.02; i=$((i + 1)); done"#;
    let plain = r#"echo "one"; echo " two"; busybox sleep 600"#;
    engine.container("traces", &env, traces);
    let label = ["-l", "thinglog.multiline=none", "-e", "PATH=/bin"];
    engine.container("plain", &label, plain);
    for part in 1..4 {
        let agent = Program::start(dir.path(), broker.address, &source);
        events(&broker, 25 * part);
        drop(agent);
    }
    let agent = Program::start(dir.path(), broker.address, &source);
    let all = events(&broker, 122);
    drop(agent);
    let expected: Vec<String> = (0..120)
        .map(|n| format!("ERROR {n}\njava.lang.Error: {n}\n\tat a.B.c(B.java:{n})"))
        .collect();
    assert_eq!(messages(&all, "traces", "stdout"), expected);
    assert_eq!(messages(&all, "plain", "stdout"), ["one", " two"]);
    let trace = all.iter().find(|(source, _)| source == "traces").unwrap();
    assert_eq!(trace.1.severity, Severity::ERROR);
}

#[test]
fn containers_that_come_and_go_lose_no_line() {
    let Some(engine) = Engine::start() else {
        return;
    };
    let broker = Broker::start();
    let options = DockerOptions {
        socket: engine.socket(),
        source_from: NameFrom::Name,
        ..DockerOptions::default()
    };
    let running = start(&broker, options);
    let mut expected = Vec::new();
    for round in 0..6 {
        for n in 0..3 {
            let name = format!("c{n}");
            // Read before it goes: what is removed takes with it what nobody has read.
            engine.container(&name, &[], &format!("echo {round} {n}; printf last"));
            expected.extend([format!("{round} {n}"), "last".to_owned()]);
        }
        events(&broker, expected.len());
        engine.docker(&["rm", "-f", "c0", "c1", "c2"]);
    }
    // The same one, again and again.
    engine.container("again", &[], "echo once more");
    for _ in 0..5 {
        engine.docker(&["wait", "again"]);
        engine.docker(&["start", "again"]);
        expected.push("once more".to_owned());
    }
    expected.push("once more".to_owned());
    let all = events(&broker, expected.len());
    running.stop();
    let mut said: Vec<String> = all.into_iter().map(|(_, event)| event.message).collect();
    said.sort();
    expected.sort();
    assert_eq!(said, expected);
}

#[test]
fn an_agent_in_a_container_does_not_carry_itself() {
    let Some(engine) = Engine::start() else {
        return;
    };
    let broker = Broker::start();
    let socket = engine.socket();
    let socket = socket.display();
    let config = engine.dir.path().join("edge.toml");
    let text = format!(
        "device = \"lamp-7\"\nbroker = \"{}\"\n[upload]\nflush = \"20ms\"\n\
         [source.docker]\nsocket = \"/engine.sock\"\nsource_from = \"name\"\n",
        broker.address
    );
    fs::write(&config, text).unwrap();
    let mount = |from: &str, to: &str| format!("{from}:{to}:ro");
    let binary = mount(env!("CARGO_BIN_EXE_thinglog-edge"), "/edge");
    let config = mount(&config.display().to_string(), "/edge.toml");
    let socket = format!("{socket}:/engine.sock");
    let mut options = vec![
        "run",
        "-d",
        "--net",
        "host",
        "--name",
        "agent",
        "-e",
        "THINGLOG_LOG=info",
    ];
    for volume in [
        &*binary,
        &config,
        &socket,
        "/lib:/lib:ro",
        "/lib64:/lib64:ro",
        "/usr:/usr:ro",
    ] {
        options.extend(["-v", volume]);
    }
    options.extend(["busybox", "/edge", "--config", "/edge.toml", "start"]);
    engine.docker(&options);
    engine.container("other", &[], "echo of another");
    events(&broker, 1);
    // It says something itself, which would come.
    engine.docker(&["kill", "-s", "HUP", "agent"]);
    let said = || {
        let output = engine.run(&["logs", "agent"]);
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&said)
            .contains("read again")
            .then_some(())
    };
    let deadline = Instant::now() + STARTS;
    while said().is_none() {
        assert!(
            Instant::now() < deadline,
            "{}",
            engine.docker(&["logs", "agent"])
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    engine.container("last", &[], "echo last");
    let all = events(&broker, 2);
    let sources: Vec<&str> = all.iter().map(|(source, _)| &**source).collect();
    assert_eq!(sources, ["other", "last"]);
}

#[test]
fn an_engine_that_is_not_there_yet_is_waited_for() {
    let broker = Broker::start();
    let dir = tempfile::tempdir().unwrap();
    let options = DockerOptions {
        socket: dir.path().join("docker.sock"),
        ..DockerOptions::default()
    };
    // It does not fail, and ends when it is told to.
    start(&broker, options).stop();
}
