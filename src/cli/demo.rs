//! `streamgauge demo`: an embedded broker, a simulated fleet that publishes to it, a pipeline that reads it back, a live
//! table, Parquet files.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::cli::broker::EmbeddedBroker;
use crate::cli::run::{drive, finish, listen};
use crate::engine::Options;
use crate::flow::time::{Span, Timestamp};
use crate::ingest::fleet::{Fleet, FleetSettings, Publisher, publish};
use crate::ingest::recording::Speed;
use crate::pipeline;
use crate::sink::board::Boards;
use crate::telemetry::Telemetry;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Where Parquet files go.
    #[arg(long, value_name = "DIR", default_value = "streamgauge-demo")]
    dir: PathBuf,
    /// Stop after this long; without, at a signal.
    #[arg(long = "for", value_name = "SPAN", value_parser = super::span)]
    duration: Option<Span>,
    /// How many devices publish.
    #[arg(long, default_value_t = 200)]
    devices: usize,
    /// How many messages each publishes a second.
    #[arg(long, default_value_t = 5.0)]
    rate: f64,
    #[command(flatten)]
    listen: super::Listen,
    #[command(flatten)]
    account: super::AccountTo,
}

/// The pipeline of the demo.
const PIPELINE: &str = include_str!("demo.toml");

/// How long a window of the demo's pipeline is.
const WINDOW_SECONDS: f64 = 2.0;

/// How many devices the table shows.
const TABLE_ROWS: usize = 12;

/// How often the table is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(500);

/// Runs the demo.
pub(super) fn demo(arguments: &Arguments) -> ExitCode {
    let broker = match EmbeddedBroker::start() {
        Ok(broker) => broker,
        Err(error) => return super::failed(&format!("cannot start the embedded broker: {error}")),
    };
    let dir = arguments.dir.display().to_string();
    let url = broker.url();
    let plan = pipeline::load_text("demo.toml", PIPELINE, &|name| match name {
        "DEMO_URL" => Some(url.clone()),
        "DEMO_DIR" => Some(dir.clone()),
        _ => None,
    });
    let plan = match plan {
        Ok(plan) => plan,
        Err(faults) => {
            eprint!("{}", faults.render(super::colour()));
            return ExitCode::from(super::FAULTY);
        }
    };
    let mut options = Options::live();
    if let Err(why) = listen(&arguments.listen, &mut options) {
        return super::usage(&why);
    }
    let over = Arc::new(AtomicBool::new(false));
    let publishing = publisher(arguments, &broker);
    let outcomes = drive(vec![plan], &options, arguments.duration, |telemetry| {
        std::thread::spawn(publishing);
        let (telemetry, over) = (telemetry.clone(), over.clone());
        std::thread::spawn(move || table(&telemetry, &over));
    });
    over.store(true, Relaxed);
    let code = finish(outcomes, &arguments.account, false);
    println!(
        "Parquet files are under {dir}; for instance: SELECT device, sum(samples) FROM '{dir}/by_device/*.parquet' GROUP BY device"
    );
    code
}

/// The fleet, on a thread of its own until the process ends. It begins once somebody listens.
fn publisher(arguments: &Arguments, broker: &EmbeddedBroker) -> impl FnOnce() + Send + 'static {
    let settings = FleetSettings {
        devices: arguments.devices,
        rate: arguments.rate,
        speed: Speed::Times(1.0),
        late: 0.002,
        duplicate: 0.001,
        malformed: 0.001,
        ..FleetSettings::default()
    };
    let address = broker.address();
    let to = Publisher {
        host: address.ip().to_string(),
        port: address.port(),
        qos: 1,
        connections: 2,
        speed: Speed::Times(1.0),
    };
    move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime.map_err(|error| tracing::error!(%error, "the fleet cannot start")) else { return };
        // What is published before the pipeline has subscribed reaches nobody; nor does it need to.
        let now = Timestamp::from_micros(jiff::Timestamp::now().as_microsecond());
        if let Err(error) = runtime.block_on(publish(Fleet::new(settings, now), &to)) {
            tracing::debug!(%error, "the fleet has stopped");
        }
    }
}

/// Draws the newest windows over and over: in place on a terminal, not at all elsewhere.
fn table(telemetry: &Telemetry, over: &AtomicBool) {
    let mut out = std::io::stdout();
    if !out.is_terminal() {
        return;
    }
    let mut drawn = 0;
    while !over.load(Relaxed) {
        std::thread::sleep(DRAW_EVERY);
        let rows = newest(&telemetry.boards);
        if rows.is_empty() {
            continue;
        }
        let delay = telemetry.watermark_delay().map_or("-".to_owned(), |span| format!("{:.1} s", span.seconds()));
        let text = render(&rows, &delay);
        // Up over what was drawn before, and clear each line.
        let up = if drawn == 0 { String::new() } else { format!("\x1b[{drawn}A") };
        let text: String = text.lines().fold(String::new(), |mut all, line| {
            let _ = writeln!(all, "\x1b[2K{line}");
            all
        });
        drawn = text.lines().count();
        if out.write_all(format!("{up}{text}").as_bytes()).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

fn newest(boards: &Boards) -> Vec<Map<String, Value>> {
    let rows = boards.get(None, "live").map(|board| board.latest()).unwrap_or_default();
    serde_json::from_str(&rows).unwrap_or_default()
}

/// The table: the first devices, and how many there are.
fn render(rows: &[Map<String, Value>], delay: &str) -> String {
    let number = |row: &Map<String, Value>, name: &str| row.get(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let mut text =
        format!("{:<14}{:>8}{:>9}{:>9}{:>9}{:>9}{:>10}\n", "device", "samples", "min", "mean", "max", "p99", "rate");
    for row in rows.iter().take(TABLE_ROWS) {
        let device = row.get("device").and_then(Value::as_str).unwrap_or("?");
        let samples = number(row, "samples");
        let _ = writeln!(
            text,
            "{:<14}{samples:>8}{:>9.2}{:>9.2}{:>9.2}{:>9.2}{:>8.1}/s",
            device.escape_debug().to_string(),
            number(row, "t_min"),
            number(row, "t_mean"),
            number(row, "t_max"),
            number(row, "t_p99"),
            samples / WINDOW_SECONDS,
        );
    }
    let total: f64 = rows.iter().map(|row| number(row, "samples")).sum();
    let _ = writeln!(text, "{} devices, {:.0} rows/s, watermark delay {delay}", rows.len(), total / WINDOW_SECONDS);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_rows_and_their_sum() {
        let rows: Vec<Map<String, Value>> = serde_json::from_str(
            r#"[{"device":"d1","samples":10,"t_min":1,"t_mean":2.5,"t_max":4,"t_p99":3.96},
                {"device":"d\u001b2","samples":6,"t_min":1,"t_mean":1,"t_max":1,"t_p99":1}]"#,
        )
        .unwrap();
        let text = render(&rows, "1.2 s");
        assert!(text.contains("d1                  10     1.00     2.50     4.00     3.96     5.0/s"), "{text}");
        assert!(text.contains("2 devices, 8 rows/s, watermark delay 1.2 s"), "{text}");
        assert!(!text.contains('\x1b'), "device text cannot steer the terminal");
    }
}
