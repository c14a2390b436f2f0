//! R6: from a port's opening to the waiter's end. `cargo bench -p knode --bench wait`

mod common;

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{keep, median};
use serde_json::{Value, json};

/// How often each one waits.
const WAITS: usize = 15;

fn main() {
    let knode = |address: SocketAddr| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_knode"));
        command.arg("wait").arg(format!("tcp://{address}"));
        command
    };
    let script = |pause: &'static str| {
        move |address: SocketAddr| {
            let (host, port) = (address.ip(), address.port());
            let mut command = Command::new("bash");
            command.arg("-c").arg(format!(
                "until (exec 3<>/dev/tcp/{host}/{port}) 2>/dev/null; do sleep {pause}; done"
            ));
            command
        }
    };
    println!("\n### R6: a port opens, the waiter ends\n");
    println!("| What | Median, ms |\n|---|---|");
    let rows = [
        row("knode wait, a port of this machine", knode),
        row("a connect every second, as wupiao", script("1")),
        row("a connect every 10 ms", script("0.01")),
    ];
    keep("wait", &rows);
}

fn row(name: &str, waiter: impl Fn(SocketAddr) -> Command) -> Value {
    let times = (0..WAITS).map(|index| once(&waiter, index)).collect();
    let milliseconds = median(times) * 1000.0;
    println!("| {name} | {milliseconds:.1} |");
    json!({ "what": name, "milliseconds": milliseconds, "runs": WAITS })
}

fn once(waiter: &impl Fn(SocketAddr) -> Command, index: usize) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let mut waiting: Child = waiter(address)
        .stdout(Stdio::null())
        .spawn()
        .expect("started");
    // Not at the same place of everybody's pauses each time.
    let pause = 1500 + index as u64 * 137 % 1000;
    std::thread::sleep(Duration::from_millis(pause));
    let _listener = TcpListener::bind(address).expect("bound again");
    let began = Instant::now();
    let status = waiting.wait().expect("waited");
    assert!(status.success());
    began.elapsed()
}
