//! The probe of MySQL and MariaDB: the greeting (protocol 10), and a login without a password if there is a user.
//!
//! A server counts connections that end after its greeting as failed, and after `max_connect_errors` of them it turns
//! this host away; with a user there are none. Layouts are those of the client/server protocol's connection phase:
//! `HandshakeV10`, `HandshakeResponse41`, `ERR_Packet`, `AuthSwitchRequest`.

use tokio::net::TcpStream;

use super::{Outcome, Peer, connect, failure, plain, talk::Talk, tcp};

/// `CLIENT_PROTOCOL_41 | CLIENT_SECURE_CONNECTION | CLIENT_PLUGIN_AUTH`.
const CAPABILITIES: u32 = 0x200 | 0x8000 | 0x8_0000;
/// Largest packet that we would take, in bytes.
const MAX_PACKET: u32 = 1 << 16;
/// `utf8mb4_general_ci`.
const CHARSET: u8 = 45;
/// `COM_QUIT`, as a packet.
const QUIT: [u8; 5] = [1, 0, 0, 0, 1];
/// Packets in which a login is settled.
const LONGEST_LOGIN: usize = 4;

/// Asks whether the server takes connections.
pub(super) async fn probe(peer: impl Into<Peer>, user: Option<&str>) -> Result<String, Outcome> {
    let mut talk = Talk::new(connect(peer).await?);
    let (_, greeting) = packet(&mut talk).await?;
    let version = version(&greeting)?;
    let found = match user {
        None => format!("greeted by {version}"),
        Some(user) => {
            login(&mut talk, user).await?;
            talk.say(&QUIT).await?;
            format!("logged in to {version}")
        }
    };
    tcp::close(talk.into_stream()).await;
    Ok(found)
}

/// The version that a greeting names.
fn version(greeting: &[u8]) -> Result<String, Outcome> {
    match greeting {
        [0xff, error @ ..] => Err(refused(error)),
        [10, rest @ ..] => {
            let version = rest.split(|&byte| byte == 0).next().unwrap_or_default();
            // MariaDB puts this before its version for the sake of old replicas.
            Ok(plain(version.strip_prefix(b"5.5.5-").unwrap_or(version)))
        }
        _ => Err(failure("the greeting is not MySQL's")),
    }
}

async fn login(talk: &mut Talk<TcpStream>, user: &str) -> Result<(), Outcome> {
    let mut answer = Vec::new();
    answer.extend(CAPABILITIES.to_le_bytes());
    answer.extend(MAX_PACKET.to_le_bytes());
    answer.push(CHARSET);
    answer.extend([0; 23]);
    answer.extend(user.bytes());
    // No password, and how it would be hidden.
    answer.extend([0, 0]);
    answer.extend(b"mysql_native_password\0");
    say(talk, 1, &answer).await?;
    for _ in 0..LONGEST_LOGIN {
        let (number, packet) = packet(talk).await?;
        match packet[..] {
            [0x00, ..] => return Ok(()),
            [0xff, ref error @ ..] => return Err(refused(error)),
            // Another way to hide the password, which is empty in each.
            [0xfe, ..] => say(talk, number.wrapping_add(1), &[]).await?,
            [0x01, ..] => {}
            _ => break,
        }
    }
    Err(failure("the login came to no end"))
}

/// What an error packet says: number, perhaps an SQL state, text.
fn refused(error: &[u8]) -> Outcome {
    let Some((number, text)) = error.split_first_chunk::<2>() else {
        return failure("the server refuses connections");
    };
    let text = if text.first() == Some(&b'#') { text.get(6..).unwrap_or_default() } else { text };
    failure(format!("the server says: {} (error {})", plain(text), u16::from_le_bytes(*number)))
}

/// A packet, with its number.
async fn packet(talk: &mut Talk<TcpStream>) -> Result<(u8, Vec<u8>), Outcome> {
    let head = talk.exactly(4, "a packet of MySQL").await?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
    Ok((head[3], talk.exactly(length, "a packet of MySQL").await?))
}

async fn say(talk: &mut Talk<TcpStream>, number: u8, payload: &[u8]) -> Result<(), Outcome> {
    let [low, middle, high, _] = (payload.len() as u32).to_le_bytes();
    let mut packet = vec![low, middle, high, number];
    packet.extend(payload);
    talk.say(&packet).await
}
