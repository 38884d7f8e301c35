//! A TCP proxy between the product and its servers: passes bytes on, delays them, holds them back, cuts
//! connections. On AMQP connections it passes whole frames, and can drop `basic.ack`.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// `class 60, method 80`: an acknowledgement of a consumer, or a confirm of the broker.
const BASIC_ACK: [u8; 4] = [0, 60, 0, 80];
const METHOD_FRAME: u8 = 1;
/// The bytes that an AMQP client writes before its first frame.
const PROTOCOL_HEADER: usize = 8;
/// Type, channel and size before a frame's payload, and the end mark behind it.
const FRAME_HEAD: usize = 7;
const FRAME_END: usize = 1;

/// The treatment of bytes on their way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    pub delay: Duration,
    pub hold: bool,
    pub drop_acks: bool,
    /// A counter; each step cuts the connections that are open.
    cuts: u64,
}

/// A proxy that passes connections on while it lives.
pub struct Proxy {
    pub address: String,
    weather: watch::Sender<Weather>,
}

impl Proxy {
    /// Start a proxy before `server` (host and port).
    pub async fn before(server: String, is_amqp: bool) -> anyhow::Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let weather = watch::Sender::new(Weather::default());
        let seen = weather.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, seen) = (server.clone(), seen.clone());
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        pass(client, server, is_amqp, seen).await;
                    }
                });
            }
        });
        Ok(Proxy { address, weather })
    }

    pub fn change(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    /// End every open connection; held bytes are lost with it.
    pub fn cut(&self) {
        self.change(|weather| weather.cuts += 1);
    }

    /// Return to fair weather.
    pub fn clear(&self) {
        self.change(|weather| *weather = Weather { cuts: weather.cuts, ..Weather::default() });
    }
}

async fn pass(client: TcpStream, server: TcpStream, is_amqp: bool, seen: watch::Receiver<Weather>) {
    // Without it small requests would wait for each other; a peer that is gone already is no error.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = Frames::new(is_amqp, PROTOCOL_HEADER);
    let back = Frames::new(is_amqp, 0);
    let mut cut = seen.clone();
    let cuts = cut.borrow().cuts;
    tokio::select! {
        () = one_way(from_client, to_server, there, seen.clone()) => {}
        () = one_way(from_server, to_client, back, seen) => {}
        _ = cut.wait_for(|weather| weather.cuts != cuts) => {}
    }
}

async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut frames: Frames,
    mut seen: watch::Receiver<Weather>,
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        let Ok(weather) = seen.wait_for(|weather| !weather.hold).await.map(|weather| *weather) else {
            return;
        };
        if !weather.delay.is_zero() {
            tokio::time::sleep(weather.delay).await;
        }
        let passed = frames.filter(&bytes[..length], weather.drop_acks);
        if to.write_all(&passed).await.is_err() {
            return;
        }
    }
}

/// A splitter of a stream of bytes into AMQP frames (AMQP 0-9-1, 4.2.3); other streams pass whole.
struct Frames {
    is_amqp: bool,
    /// Bytes before the first frame that are still to come.
    prologue: usize,
    buffer: Vec<u8>,
}

impl Frames {
    fn new(is_amqp: bool, prologue: usize) -> Frames {
        Frames { is_amqp, prologue, buffer: Vec::new() }
    }

    /// Return the whole frames of these bytes and of those kept from before.
    fn filter(&mut self, bytes: &[u8], drop_acks: bool) -> Vec<u8> {
        if !self.is_amqp {
            return bytes.to_vec();
        }
        self.buffer.extend_from_slice(bytes);
        let mut passed: Vec<u8> = self.buffer.drain(..self.prologue.min(self.buffer.len())).collect();
        self.prologue -= passed.len();
        while let Some(length) = self.next_frame() {
            let frame: Vec<u8> = self.buffer.drain(..length).collect();
            let is_ack = frame[0] == METHOD_FRAME && frame[FRAME_HEAD..].starts_with(&BASIC_ACK);
            if !(is_ack && drop_acks) {
                passed.extend(frame);
            }
        }
        passed
    }

    /// Return the length of the first frame, if all of it is there.
    fn next_frame(&self) -> Option<usize> {
        let size = self.buffer.get(3..FRAME_HEAD)?.try_into().ok()?;
        let length = FRAME_HEAD + u32::from_be_bytes(size) as usize + FRAME_END;
        (self.prologue == 0 && self.buffer.len() >= length).then_some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(method: [u8; 4]) -> Vec<u8> {
        [&[1, 0, 1, 0, 0, 0, 4][..], &method, &[0xCE]].concat()
    }

    #[test]
    fn drops_only_acknowledgements() {
        let mut frames = Frames::new(true, PROTOCOL_HEADER);
        let publish = frame([0, 60, 0, 40]);
        let stream = [&b"AMQP\0\0\x09\x01"[..], &publish, &frame(BASIC_ACK), &publish].concat();
        let mut passed = Vec::new();
        for byte in stream {
            passed.extend(frames.filter(&[byte], true));
        }
        assert_eq!(passed, [&b"AMQP\0\0\x09\x01"[..], &publish, &publish].concat());
    }
}
