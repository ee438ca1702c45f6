//! What an operator can do wrong, and what they are told.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use tidings_proto::name::Domain;
use tidings_server::refusal::Code;
use tidings_server::{identity, node};

use crate::client::Person;
use crate::program::{Program, run, within};

/// Serves until it fails, which it has to, and tells what it printed.
async fn fails(program: &Program, words: &[&str]) {
    let config = program.config().display().to_string();
    let (success, text) = run(program.folder.path(), &["serve", "--config", &config]).await;
    println!("{text}");
    assert!(!success, "it has to fail: {text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
    assert!(!text.contains("panicked") && !text.contains("RUST_BACKTRACE"), "{text}");
}

fn replace(path: &Path, old: &str, new: &str) {
    let text = std::fs::read_to_string(path).expect("reads");
    assert!(text.contains(old), "{old} in {text}");
    std::fs::write(path, text.replace(old, new)).expect("writes");
}

#[tokio::test]
async fn each_mistake_in_the_settings_names_file_key_value_and_what_is_expected() {
    let cases: [(&str, &str, &[&str]); 14] = [
        ("domain = \"home.test\"", "domain = home", &["line 1"]),
        ("domain = \"home.test\"", "domain = \"Home.test\"", &["domain = Home.test", "lower-case"]),
        (
            "domain = \"home.test\"",
            "domain = \"\u{43d}ome.test\"",
            &["domain = \u{43d}ome.test", "lower-case"],
        ),
        ("domain = \"home.test\"", "", &["domain = (missing)", "lower-case"]),
        ("data = \"data\"", "data = 7", &["data = 7", "path of a folder"]),
        ("listen = \"127.0.0.1:0\"", "listen = \"localhost\"", &["listen = localhost", "address and port"]),
        ("listen = \"127.0.0.1:0\"", "lissen = \"127.0.0.1:0\"", &["lissen", "known keys", "listen"]),
        ("registration = \"open\"", "registration = \"all\"", &["registration = all", "\"token\""]),
        ("[tls]\n", "[tls]\ncert = \"x\"\n", &["tls.cert", "known keys", "certificate, key"]),
        ("key = \"certificate-key.pem\"", "", &["tls.key = (missing)", "PEM"]),
        ("discovery = false", "discovery = \"no\"", &["federation.discovery", "true or false"]),
        ("[limits]", "[limits]\nhandshake_ms = 5", &["limits.handshake_ms = 5", "1000 to 30000"]),
        ("[limits]", "[limits]\nno_such = 5", &["limits.no_such = 5", "registry/limits.toml"]),
        ("[limits]", "[limits]\nhandshake_ms = \"5s\"", &["limits.handshake_ms = \"5s\"", "whole number"]),
    ];
    for (old, new, words) in cases {
        let program = Program::prepare("");
        replace(&program.config(), old, new);
        fails(&program, &["tidings.toml"]).await;
        fails(&program, words).await;
    }
}

#[tokio::test]
async fn settings_that_are_not_there_are_named() {
    let program = Program::prepare("");
    std::fs::remove_file(program.config()).expect("removes");
    fails(&program, &["tidings.toml", "No such file", "tidings init"]).await;
}

#[tokio::test]
async fn damaged_and_missing_key_files_are_named() {
    for name in ["server-chain", "server-online.key", "franking.key"] {
        let program = Program::prepare("");
        let file = program.data().join(name);
        std::fs::write(&file, "rubbish").expect("writes");
        fails(&program, &[name, "damaged", "backup"]).await;
        std::fs::remove_file(&file).expect("removes");
        fails(&program, &[name, "No such file", "tidings init"]).await;
    }
    let program = Program::prepare("");
    std::fs::remove_file(program.data().join("server-root.key")).expect("removes");
    let mut program = program;
    program.begin().await;
    program.stop().await;
}

#[tokio::test]
async fn a_data_folder_of_another_domain_is_refused() {
    let program = Program::prepare("");
    std::fs::remove_dir_all(program.data()).expect("removes");
    identity::create(&program.data(), &Domain::parse("other.test").expect("a domain"), node::random::<32>)
        .expect("made");
    fails(&program, &["other.test", "home.test", "data"]).await;
}

#[tokio::test]
async fn certificate_mistakes_name_the_files() {
    let program = Program::prepare("");
    let (certificate, key) =
        (program.folder.path().join("certificate.pem"), program.folder.path().join("certificate-key.pem"));
    let other = rcgen::generate_simple_self_signed(vec!["home.test".to_owned()]).expect("a certificate");
    let good = std::fs::read(&key).expect("reads");
    std::fs::write(&key, other.signing_key.serialize_pem()).expect("writes");
    fails(&program, &["certificate.pem", "certificate-key.pem", "do not belong together"]).await;
    std::fs::write(&key, "rubbish").expect("writes");
    fails(&program, &["certificate-key.pem"]).await;
    std::fs::write(&key, good).expect("writes");
    std::fs::write(&certificate, "rubbish").expect("writes");
    fails(&program, &["certificate.pem", "no certificate"]).await;
    std::fs::remove_file(&certificate).expect("removes");
    fails(&program, &["certificate.pem", "No such file"]).await;
    // The superuser reads everything.
    std::fs::write(&certificate, "rubbish").expect("writes");
    std::fs::set_permissions(&certificate, std::fs::Permissions::from_mode(0o000)).expect("sets");
    if std::fs::read(&certificate).is_err() {
        fails(&program, &["certificate.pem", "ermission denied"]).await;
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let program = Program::prepare("");
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0)).expect("a socket");
    let address = socket.local_addr().expect("an address").to_string();
    replace(&program.config(), "127.0.0.1:0", &address);
    fails(&program, &[&address, "another program"]).await;
}

#[tokio::test]
async fn a_data_folder_in_use_is_refused_and_the_first_serves_on() {
    let program = Program::start("").await;
    fails(&program, &["data", "in use by another process"]).await;
    program.enter("alice", 1).await.1.fence().await;
    let (success, text) =
        run(program.folder.path(), &["new-incarnation", "--config", &program.config().display().to_string()])
            .await;
    assert!(!success && text.contains("in use by another process"), "{text}");
    program.stop().await;
}

#[tokio::test]
async fn a_damaged_or_newer_database_is_named_with_what_to_do() {
    let mut program = Program::start("").await;
    program.enter("alice", 1).await;
    program.signal("-TERM");
    program.ended().await;
    let file = program.data().join("tidings.db");
    let mut bytes = std::fs::read(&file).expect("reads");
    // The header's user_version, 4 bytes, big-endian.
    bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
    std::fs::write(&file, &bytes).expect("writes");
    fails(&program, &["tidings.db", "schema 99", "newer version"]).await;
    std::fs::write(&file, vec![0x5a; 8192]).expect("writes");
    fails(&program, &["tidings.db", "not a database", "backup"]).await;
}

#[tokio::test]
async fn a_damaged_row_costs_its_account_and_nobody_else() {
    let mut program = Program::start("").await;
    let (alice, _) = program.enter("alice", 1).await;
    let (bob, _) = program.enter("bob", 2).await;
    program.signal("-TERM");
    program.ended().await;
    // A link's bytes inside the file; their lengths and the pages stay as they are.
    let file = program.data().join("tidings.db");
    let mut bytes = std::fs::read(&file).expect("reads");
    let body = &alice.genesis.body;
    let places: Vec<usize> =
        (0..bytes.len() - body.len()).filter(|at| bytes[*at..].starts_with(body)).collect();
    assert!(!places.is_empty(), "the link is in the file");
    for place in places {
        bytes[place..place + body.len()].fill(0xff);
    }
    std::fs::write(&file, bytes).expect("writes");
    program.begin().await;
    let raw = crate::raw::Raw::silent(&program).await;
    let refused = crate::client::close_code({
        let mut raw = raw;
        let frames = crate::raw::first_frames(
            &raw.connection,
            &program,
            (crate::program::device(&alice), &alice.device),
        );
        raw.control.0.write_all(&frames).await.expect("writes");
        within(raw.connection.closed()).await
    });
    assert!([Code::UNAVAILABLE.0, Code::INTERNAL.0].contains(&refused), "{refused:#x}");
    assert!(
        program.log().contains("damaged") || program.log().contains("cannot be read"),
        "{}",
        program.log()
    );
    program.device(&bob).await.fence().await;
    println!("{}", program.log());
    program.stop().await;
}

#[tokio::test]
async fn help_and_version_are_printed_and_nonsense_is_not_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let (success, text) = run(folder.path(), &["--help"]).await;
    assert!(
        success && ["serve", "init", "invite", "new-incarnation"].iter().all(|word| text.contains(word)),
        "{text}"
    );
    let (success, text) = run(folder.path(), &["--version"]).await;
    assert!(success && text.starts_with("tidings "), "{text}");
    for arguments in [
        &["nonsense"][..],
        &["serve"],
        &["init"],
        &["init", "Bad Domain"],
        &["serve", "--dev", "--port", "x"],
    ] {
        let (success, text) = run(folder.path(), arguments).await;
        assert!(!success && text.contains("error:"), "{arguments:?}: {text}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 0, "nothing was made");
}

#[tokio::test]
async fn init_writes_settings_that_serve_and_never_overwrites() {
    let folder = tempfile::tempdir().expect("a folder");
    let (success, text) = run(folder.path(), &["init", "home.test"]).await;
    assert!(success, "{text}");
    let config = folder.path().join("tidings.toml");
    let settings = tidings_server::config::Config::load(&config).expect("its own settings");
    assert_eq!(settings.domain.as_str(), "home.test");
    let mode =
        std::fs::metadata(folder.path().join("data/server-root.key")).expect("a key").permissions().mode();
    assert_eq!(mode & 0o077, 0, "for its owner only");
    let before: Vec<Vec<u8>> = files(folder.path());
    let (success, text) = run(folder.path(), &["init", "home.test"]).await;
    println!("{text}");
    assert!(
        !success && text.contains("data holds the identity") && text.contains("nothing was changed"),
        "{text}"
    );
    assert_eq!(files(folder.path()), before, "nothing changed");
}

fn files(folder: &Path) -> Vec<Vec<u8>> {
    let names = [
        "tidings.toml",
        "data/server-root.key",
        "data/server-online.key",
        "data/franking.key",
        "data/server-chain",
    ];
    names.iter().map(|name| std::fs::read(folder.join(name)).expect("a file")).collect()
}

#[tokio::test]
async fn an_invitation_made_while_the_server_runs_is_good_for_one_account() {
    let mut program = Program::prepare("");
    program.configure("token", "");
    program.begin().await;
    let (alice, bob) = (Person::new(&program.domain, "alice", 1), Person::new(&program.domain, "bob", 2));
    let config = program.config().display().to_string();
    let (success, token) = run(program.folder.path(), &["invite", "--config", &config]).await;
    assert!(success, "{token}");
    let token = token.trim();
    assert_eq!(program.register(&alice, "nothing").await.expect_err("no token").code, Code::TOKEN_INVALID.0);
    program.register(&alice, token).await.expect("registers");
    assert_eq!(program.register(&bob, token).await.expect_err("used").code, Code::TOKEN_INVALID.0);
    assert!(!program.log().contains(token));
    program.stop().await;
}

#[tokio::test]
async fn a_server_for_trying_things_runs_once_in_a_folder_and_again_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let serve = ["serve", "--dev", "--port", "0", "--data", "dev"];
    for _ in 0..2 {
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidings"))
            .current_dir(folder.path())
            .args(serve)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("a process");
        let mut lines = tokio::io::BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        within(tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line)).await.expect("reads");
        assert!(line.starts_with("localhost listens at 127.0.0.1:"), "{line}");
        let (success, text) = run(folder.path(), &serve).await;
        assert!(!success && text.contains("in use by another process"), "{text}");
        let id = child.id().expect("it runs").to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
        assert!(within(child.wait()).await.expect("a status").success());
    }
}
