use std::{fs, path::PathBuf};

use jsonwebtoken::{EncodingKey, Header};

use super::*;

const SECRET: &str = "a secret of more than thirty-two bytes";
const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A broker's files, with user `alice` (operator, password `wonder`), a press with a certificate only,
/// and device `lamp`.
struct Files {
    dir: tempfile::TempDir,
    token: String,
}

impl Files {
    fn new() -> Files {
        let dir = tempfile::tempdir().unwrap();
        let hash = password::Secret::Hash(password::hash(b"wonder").unwrap());
        let grant: Grant = "role=operator".parse().unwrap();
        let users = password::set("press:*:role=operator\n", "alice", hash, Some(&grant));
        let (tokens, token) = token::add("", "lamp", false).unwrap();
        let files = Files { dir, token };
        files.write("passwords", &users.unwrap());
        files.write("tokens", &tokens);
        files.write("keys", SECRET);
        files.write("acl", "topic read weather/#\n");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn config(&self) -> Auth {
        Auth {
            passwords: Some(self.path("passwords")),
            tokens: Some(self.path("tokens")),
            acl: Some(self.path("acl")),
            jwt: Some(Jwt {
                keys: self.path("keys"),
                ..Jwt::default()
            }),
            anonymous: false,
        }
    }

    fn open(&self) -> Access {
        Access::open(&self.config(), &Topics::default()).unwrap()
    }
}

async fn login(access: &Access, username: &str, password: &[u8]) -> Result<Login, CodecError> {
    let shown = Credentials {
        username: Some(username),
        password: Some(password),
        certificate: None,
    };
    access.login(shown, ADDRESS).await
}

async fn show(access: &Access, certificate: Option<&str>) -> Result<Login, CodecError> {
    let shown = Credentials {
        username: None,
        password: None,
        certificate,
    };
    access.login(shown, ADDRESS).await
}

fn pass(access: &Access, login: &Login, client_id: &str) -> Arc<Pass> {
    access.pass(login.clone(), client_id.into())
}

fn jwt(name: &str, seconds: u64) -> String {
    let exp = clock::now() / 1_000_000_000 + seconds;
    let claims = serde_json::json!({"sub": name, "exp": exp});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

#[tokio::test]
async fn every_method_proves_a_principal_with_its_role() {
    let files = Files::new();
    let access = files.open();
    let alice = login(&access, "alice", b"wonder").await.unwrap();
    assert_eq!(alice.grant.role, Some(Role::Operator));
    let lamp = login(&access, "lamp", files.token.as_bytes())
        .await
        .unwrap();
    assert_eq!(lamp.grant.role, Some(Role::Device));
    let bearer = login(&access, "anything", jwt("sensor", 60).as_bytes())
        .await
        .unwrap();
    assert_eq!(bearer.principal.as_deref(), Some("sensor"));
    assert_eq!(bearer.grant.role, Some(Role::Device));
    assert!(bearer.expires.is_some() && lamp.expires.is_none());
    let press = show(&access, Some("press")).await.unwrap();
    assert_eq!(press.grant.role, Some(Role::Operator));
    let unlisted = show(&access, Some("drill")).await.unwrap();
    assert_eq!(unlisted.grant.role, Some(Role::Device));
}

#[tokio::test]
async fn what_proves_nothing_is_refused_alike_for_known_and_unknown_names() {
    let files = Files::new();
    let access = files.open();
    let other = token::generate().unwrap();
    let wrong = Err(CodecError::new(
        Reason::BadCredentials,
        "wrong user name or password",
    ));
    for user in ["alice", "press", "lamp", "nobody", ""] {
        let answer = login(&access, user, b"wrong").await.map(drop);
        assert_eq!(answer, wrong, "{user}");
        let answer = login(&access, user, other.as_bytes()).await.unwrap_err();
        assert_eq!(answer.text, "wrong device name or token", "{user}");
    }
    assert_eq!(login(&access, "alice", b"").await.map(drop), wrong);
    assert_eq!(login(&access, "press", b"*").await.map(drop), wrong);
    let error = show(&access, None).await.unwrap_err();
    assert_eq!(error.reason, Reason::NotAuthorized);
    assert!(show(&access, Some("$router")).await.is_err());
}

#[tokio::test]
async fn a_token_logs_in_its_own_device_only() {
    let files = Files::new();
    let access = files.open();
    for user in ["alice", "lamp2", "press"] {
        assert!(
            login(&access, user, files.token.as_bytes()).await.is_err(),
            "{user}"
        );
    }
}

#[tokio::test]
async fn nobody_is_asked_while_nothing_is_configured_and_refused_once_something_is() {
    let open = Access::open(&Auth::default(), &Topics::default()).unwrap();
    let anybody = show(&open, None).await.unwrap();
    let rights = pass(&open, &anybody, "x");
    assert!(rights.may_write("anything") && rights.is_trusted());
    assert!(
        login(&open, "any", b"thing")
            .await
            .unwrap()
            .principal
            .is_none()
    );
    // A certificate that was verified still says who it is.
    let lamp = show(&open, Some("lamp")).await.unwrap();
    assert!(!pass(&open, &lamp, "lamp").may_write("anything"));

    let files = Files::new();
    let config = Auth {
        anonymous: true,
        ..files.config()
    };
    let access = Access::open(&config, &Topics::default()).unwrap();
    let nobody = show(&access, None).await.unwrap();
    let rights = pass(&access, &nobody, "x");
    assert!(rights.may_read("weather/x") && !rights.may_write("weather/x"));
    assert!(!rights.is_trusted());
}

#[tokio::test]
async fn a_reload_ends_logins_whose_proof_is_gone_and_keeps_the_others() {
    let files = Files::new();
    let access = files.open();
    let alice = login(&access, "alice", b"wonder").await.unwrap();
    let lamp = login(&access, "lamp", files.token.as_bytes())
        .await
        .unwrap();
    let bearer = login(&access, "", jwt("sensor", 60).as_bytes())
        .await
        .unwrap();
    let press = show(&access, Some("press")).await.unwrap();
    access.reload().unwrap();
    for kept in [&alice, &lamp, &bearer, &press] {
        assert!(access.judge(kept).is_ok(), "{kept:?}");
    }
    files.write("passwords", "press:*\n");
    files.write("tokens", "");
    files.write("keys", "another secret of more than thirty-two bytes");
    access.reload().unwrap();
    for gone in [&alice, &lamp, &bearer] {
        assert!(access.judge(gone).is_err(), "{gone:?}");
    }
    assert_eq!(
        access.judge(&press).unwrap().grant.role,
        None,
        "the new role counts"
    );
    assert!(
        login(&access, "alice", b"wonder").await.is_err(),
        "nothing is remembered"
    );
    assert!(
        login(&access, "lamp", files.token.as_bytes())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_changed_password_ends_what_logged_in_with_the_old_one() {
    let files = Files::new();
    let access = files.open();
    let alice = login(&access, "alice", b"wonder").await.unwrap();
    let hash = password::Secret::Hash(password::hash(b"land").unwrap());
    files.write(
        "passwords",
        &password::set("", "alice", hash, None).unwrap(),
    );
    access.reload().unwrap();
    assert_eq!(
        access.judge(&alice).unwrap_err(),
        Gone("the user's password was changed")
    );
    assert!(login(&access, "alice", b"land").await.is_ok());
}

#[tokio::test]
async fn a_bad_file_leaves_the_old_ones_serving_and_says_where_it_is_bad() {
    let files = Files::new();
    let access = files.open();
    files.write("tokens", "");
    files.write("acl", "topic read a\nallow b\n");
    let error = access.reload().unwrap_err().to_string();
    assert!(error.contains("acl:2: \"allow\" begins no rule"), "{error}");
    assert_eq!(access.generation(), 0);
    assert!(login(&access, "lamp", files.token.as_bytes()).await.is_ok());
}

#[tokio::test]
async fn a_missing_file_says_what_makes_it() {
    let files = Files::new();
    fs::remove_file(files.path("tokens")).unwrap();
    let Err(error) = Access::open(&files.config(), &Topics::default()) else {
        panic!("it opened");
    };
    assert!(error.to_string().contains("thinglog device add"), "{error}");
}

#[tokio::test]
async fn a_right_password_is_not_verified_twice() {
    let files = Files::new();
    let access = files.open();
    login(&access, "alice", b"wonder").await.unwrap();
    let tables = access.tables.read().clone();
    assert!(
        access
            .verifier
            .knows(tables.passwords.hash_of("alice").0, b"wonder")
    );
}

#[tokio::test]
async fn failures_of_an_address_hold_up_neither_tokens_nor_known_passwords() {
    let files = Files::new();
    let access = files.open();
    login(&access, "alice", b"wonder").await.unwrap();
    for _ in 0..1_000 {
        access
            .throttle
            .lock()
            .failed(ADDRESS, Named::Yes, clock::now());
    }
    while access
        .throttle
        .lock()
        .attempt(ADDRESS, Named::Yes, clock::now())
        .is_some()
    {}
    let error = login(&access, "alice", b"guess").await.unwrap_err();
    assert_eq!(error.reason, Reason::ServerBusy);
    assert!(login(&access, "alice", b"wonder").await.is_ok());
    assert!(login(&access, "lamp", files.token.as_bytes()).await.is_ok());
}

#[tokio::test]
async fn parts_of_the_process_log_in_with_what_nobody_else_knows() {
    let files = Files::new();
    let access = files.open();
    let (user, password) = access.part("router", Role::Router).unwrap();
    let router = login(&access, &user, password.as_bytes()).await.unwrap();
    assert!(pass(&access, &router, "x").is_trusted());
    access.reload().unwrap();
    assert!(access.judge(&router).is_ok());
    assert!(login(&access, &user, files.token.as_bytes()).await.is_err());
    assert!(login(&access, "alice", password.as_bytes()).await.is_err());
    let open = Access::open(&Auth::default(), &Topics::default()).unwrap();
    assert_eq!(open.part("router", Role::Router), None);
}

#[tokio::test]
async fn sessions_are_taken_by_their_principal_and_by_routers_of_the_house() {
    let files = Files::new();
    let access = files.open();
    let lamp = login(&access, "lamp", files.token.as_bytes())
        .await
        .unwrap();
    assert!(lamp.may_take(Some("lamp")) && lamp.may_take(None));
    assert!(!lamp.may_take(Some("alice")) && !lamp.may_take(Some("$router")));
    let (user, password) = access.part("router", Role::Router).unwrap();
    let router = login(&access, &user, password.as_bytes()).await.unwrap();
    assert!(router.may_take(Some("some-router")) && router.may_take(Some("$router")));
    let separate = Login::new("r", Grant::of(Role::Router), Proof::Certificate);
    assert!(separate.may_take(Some("$router")) && !separate.may_take(Some("lamp")));
}

#[tokio::test]
async fn a_device_has_client_ids_of_its_own() {
    let files = Files::new();
    let access = files.open();
    let lamp = login(&access, "lamp", files.token.as_bytes())
        .await
        .unwrap();
    for own in ["lamp", "lamp/1", "lamp/a/b"] {
        assert!(lamp.check_client_id(own).is_ok(), "{own}");
    }
    for foreign in [
        "lamp2",
        "other",
        "other/lamp",
        "Lamp",
        "thinglog-router/file",
    ] {
        let error = lamp.check_client_id(foreign).unwrap_err();
        assert_eq!(error.reason, Reason::ClientIdInvalid, "{foreign}");
    }
    assert!(
        lamp.check_client_id(&lamp.assign_client_id("auto-1".into()))
            .is_ok()
    );
    let alice = login(&access, "alice", b"wonder").await.unwrap();
    assert!(alice.check_client_id("anything").is_ok());
}

#[test]
fn an_explanation_takes_the_role_from_the_files_or_from_the_question() {
    let files = Files::new();
    let topics = Topics::default();
    let ask = |user: Option<&str>, grant: Option<&str>, topic: &str| {
        let who = Who {
            user: user.map(str::to_owned),
            client_id: None,
            grant: grant.map(|grant| grant.parse().unwrap()),
        };
        explain(&files.config(), &topics, &who, Action::Write, topic).unwrap()
    };
    assert!(
        ask(Some("alice"), None, "thinglog/config/default")
            .decision
            .allowed
    );
    assert!(
        ask(Some("lamp"), None, "thinglog/logs/lamp/a")
            .decision
            .allowed
    );
    assert!(
        !ask(Some("lamp"), Some(""), "thinglog/logs/lamp/a")
            .decision
            .allowed
    );
    assert!(!ask(None, None, "weather/x").decision.allowed);
    let line = ask(Some("new"), Some("role=device"), "thinglog/logs/new/a");
    assert_eq!(
        line.decision.because.to_string(),
        "role device: write thinglog/logs/%u/#"
    );
}
