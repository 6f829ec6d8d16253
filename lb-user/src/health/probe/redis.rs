//! The Redis probe: `AUTH`, `PING`, `INFO replication`, `QUIT`, all said at once (RESP 2; the server answers in order).

use tokio::io::{AsyncRead, AsyncWrite};

use super::{MOST, Outcome, Peer, connect, failure, plain, quote, talk::Talk, tcp};

/// Asks whether the server is there, and whether it is the master if only that will do.
pub(super) async fn probe(
    peer: impl Into<Peer>,
    password: Option<&str>,
    master: bool,
) -> Result<String, Outcome> {
    let mut commands = Vec::new();
    if let Some(password) = password {
        command(&mut commands, &["AUTH", password]);
    }
    command(&mut commands, &["PING"]);
    if master {
        command(&mut commands, &["INFO", "replication"]);
    }
    command(&mut commands, &["QUIT"]);

    let mut talk = Talk::new(connect(peer).await?);
    talk.say(&commands).await?;
    if password.is_some() {
        simple(&mut talk, "AUTH", b"+OK").await?;
    }
    simple(&mut talk, "PING", b"+PONG").await?;
    let role = if master { Some(role(&mut talk).await?) } else { None };
    tcp::close(talk.into_stream()).await;
    match role {
        None => Ok("PONG".into()),
        Some(role) if role == b"master" => Ok("PONG, role master".into()),
        Some(role) => Err(failure(format!("its role is {}, expected master", plain(&role)))),
    }
}

/// An array of bulk strings.
fn command(commands: &mut Vec<u8>, words: &[&str]) {
    commands.extend(format!("*{}\r\n", words.len()).bytes());
    for word in words {
        commands.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
    }
}

/// An answer of one line that must be `expected`.
async fn simple<S>(talk: &mut Talk<S>, command: &str, expected: &[u8]) -> Result<(), Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let line = talk.line(&format!("the answer to {command}")).await?;
    if line == expected { Ok(()) } else { Err(unexpected(command, &line)) }
}

/// What `INFO replication` says the role is.
async fn role<S: AsyncRead + AsyncWrite + Unpin>(talk: &mut Talk<S>) -> Result<Vec<u8>, Outcome> {
    let head = talk.line("the answer to INFO").await?;
    let length =
        head.strip_prefix(b"$").and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
    let Some(length) = length.filter(|&length| length <= MOST) else { return Err(unexpected("INFO", &head)) };
    let text = talk.exactly(length, "the answer to INFO").await?;
    let role = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"role:"));
    role.map(|role| role.trim_ascii_end().to_vec()).ok_or_else(|| failure("the answer to INFO names no role"))
}

fn unexpected(command: &str, line: &[u8]) -> Outcome {
    match line.strip_prefix(b"-") {
        Some(error) => failure(format!("{command}: the server says {}", plain(error))),
        None => failure(format!("{command}: the answer is {}, which is not Redis's", quote(line))),
    }
}
