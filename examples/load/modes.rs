//! The five measurements.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Map, Value, json};

use crate::check::{Failure, Kind, Result};
use crate::client::Phase;
use crate::http;
use crate::options::{Mode, Options};
use crate::process::{Cpu, Holdings, Process, socket_memory};
use crate::stats::{round, summary};
use crate::swarm::Swarm;

/// What a run has found out so far.
pub type Report = Map<String, Value>;

/// After the last count, so long for one too many to show itself.
const SETTLE: Duration = Duration::from_millis(200);

/// Descriptors that are not connections, with some to spare.
const OTHER_DESCRIPTORS: usize = 32;

/// Runs the mode that the options name. The report holds what was measured even when it fails.
///
/// # Errors
///
/// When the server breaks a promise, does not answer in time, or cannot be reached at all.
pub fn run(options: &Options, report: &mut Report) -> Result<()> {
    raise_descriptor_limit(options.clients + options.stuck + options.connections + OTHER_DESCRIPTORS)?;
    let start = http::likes(options.addr)?;
    report.insert("start".into(), start.into());
    let mut swarm = Swarm::new(options, start)?;
    let result = measure(&mut swarm, options, report);
    swarm.progress.finish_and_clear();
    let breaches = swarm.crowd.checker.breaches().map(|(kind, times)| (kind.name().to_owned(), times.into()));
    report.insert("breaches".into(), Value::Object(breaches.collect()));
    result
}

fn measure(swarm: &mut Swarm, options: &Options, report: &mut Report) -> Result<()> {
    let server = options.pid.map(Process);
    let before = server.map(|server| Ok((holdings(server)?, cpu(server)?))).transpose()?;
    swarm.progress = bar("connecting", options.clients + options.stuck + options.connections);
    let began = Instant::now();
    swarm.connect(options)?;
    report.insert("connect_seconds".into(), seconds(began.elapsed()));
    let stuck = (options.stuck > 0).then(|| Stuck::look(server)).transpose()?;
    match options.mode {
        Mode::Closed => closed(swarm, options, report)?,
        Mode::Steady => steady(swarm, options, report)?,
        Mode::Storm => storm(swarm, options, report)?,
        Mode::Connect => connected(swarm, options, before, report)?,
        Mode::Put => put(swarm, options, report)?,
    }
    swarm.idle(SETTLE)?;
    if let Some(before) = stuck {
        before.compare(options.stuck, report)?;
        if options.mode == Mode::Closed {
            hold(swarm, options)?;
        }
        report.insert("stuck_dropped".into(), swarm.wake_stuck()?.into());
    }
    let end = http::likes(options.addr)?;
    report.insert("end".into(), end.into());
    swarm.crowd.checker.ended(end)?;
    swarm.crowd.posts_ended(options.addr)?;
    swarm.leave();
    Ok(())
}

/// One like at a time, by each liker in turn; while it warms up, several at a time.
fn closed(swarm: &mut Swarm, options: &Options, report: &mut Report) -> Result<()> {
    let deadline = Instant::now() + options.timeout;
    let mut likers = (0..options.likers).cycle();
    let mut round = |swarm: &mut Swarm, likes: u64| -> Result<Option<(Duration, Duration)>> {
        // Every count before has been shown to all, unless likes were lost, which only a lenient run survives.
        let ceiling = swarm.crowd.checker.ceiling();
        let target = if options.strict { ceiling } else { swarm.crowd.newest };
        swarm.aim(target + likes);
        let sent = Instant::now();
        let open = |&id: &usize| swarm.crowd.clients[id].phase == Phase::Open;
        let liker = likers.by_ref().take(options.likers).find(open);
        swarm.crowd.like(liker.ok_or_else(|| Failure::new(Kind::Dropped, "no liker is left"))?, likes);
        swarm.reach(deadline)?;
        let goal = &swarm.crowd.goal;
        Ok(goal.first.zip(goal.last).map(|(first, last)| (first - sent, last - sent)))
    };
    swarm.progress = bar("warming up", options.warmup as usize);
    let mut left = options.warmup;
    while left > 0 {
        let burst = left.min(options.burst);
        round(swarm, burst)?;
        left -= burst;
    }
    swarm.base += options.warmup;
    swarm.progress = bar("likes", options.likes as usize);
    let meter = Meter::start(swarm, options)?;
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for _ in 0..options.likes {
        if let Some((to_first, to_last)) = round(swarm, 1)? {
            first.push(to_first);
            last.push(to_last);
        }
    }
    let complete = last.len() as u64;
    meter.stop(swarm, report)?;
    report.insert("likes_shown_to_all".into(), complete.into());
    report.insert("first_us".into(), summary(first));
    report.insert("last_us".into(), summary(last));
    Ok(())
}

/// One like after another, each sent as soon as its liker has been shown the one before: a server may save the next
/// while it still shows the last.
fn steady(swarm: &mut Swarm, options: &Options, report: &mut Report) -> Result<()> {
    let deadline = Instant::now() + options.timeout;
    swarm.progress = bar("warming up", options.warmup as usize);
    if options.warmup > 0 {
        swarm.aim(swarm.crowd.checker.ceiling() + options.warmup);
        swarm.crowd.like_one_by_one(options.warmup);
        swarm.reach(deadline)?;
    }
    swarm.base += options.warmup;
    swarm.progress = bar("likes", options.likes as usize);
    swarm.aim(swarm.crowd.checker.ceiling() + options.likes);
    let meter = Meter::start(swarm, options)?;
    swarm.crowd.like_one_by_one(options.likes);
    swarm.reach(deadline)?;
    meter.stop(swarm, report).map(drop)
}

/// All likes as fast as they can be sent.
fn storm(swarm: &mut Swarm, options: &Options, report: &mut Report) -> Result<()> {
    swarm.progress = bar("likes", options.likes as usize);
    let start = swarm.crowd.checker.ceiling();
    // Nothing goes out before the first turn.
    let likers = options.likers as u64;
    for id in 0..likers {
        let likes = options.likes / likers + u64::from(id < options.likes % likers);
        swarm.crowd.like(id as usize, likes);
    }
    swarm.aim(start + options.likes);
    for client in &mut swarm.crowd.clients {
        client.frames = 0;
    }
    let meter = Meter::start(swarm, options)?;
    let complete = swarm.reach(meter.began + options.timeout);
    let frames = swarm.crowd.clients[..options.clients].iter().map(|client| client.frames);
    let mean = frames.clone().sum::<u64>() as f64 / options.clients as f64;
    report.insert(
        "frames_per_client".into(),
        json!({ "min": frames.clone().min(), "mean": round(mean), "max": frames.max() }),
    );
    let last = swarm.crowd.goal.last;
    let time = meter.stop(swarm, report)?;
    report.insert("complete".into(), complete?.into());
    let time = last.map_or(time, |last| last - meter.began);
    report.insert("seconds".into(), seconds(time));
    report.insert("likes_per_second".into(), rate(options.likes, time));
    Ok(())
}

/// What the clients cost that are connected now, and what they cost while nothing happens.
fn connected(swarm: &mut Swarm, options: &Options, before: Option<(Holdings, Cpu)>, report: &mut Report) -> Result<()> {
    report.insert("first_count_us".into(), summary(std::mem::take(&mut swarm.crowd.arrivals)));
    let Some((server, (before, cpu_before))) = options.pid.map(Process).zip(before) else {
        return hold(swarm, options);
    };
    let clients = options.clients + options.stuck;
    let cpu_connected = cpu(server)?;
    report.insert("server_cpu_us_per_client".into(), micros_each(cpu_connected.since(&cpu_before), clients as u64));
    report.insert("server".into(), compare(before, holdings(server)?, clients));
    hold(swarm, options)?;
    if !options.hold.is_zero() {
        report.insert("server_after_hold".into(), compare(before, holdings(server)?, clients));
        report.insert("hold_cpu_seconds".into(), seconds(cpu(server)?.since(&cpu_connected)));
    }
    Ok(())
}

fn hold(swarm: &mut Swarm, options: &Options) -> Result<()> {
    swarm.progress = bar("holding", options.clients + options.stuck);
    swarm.idle(options.hold)
}

fn compare(before: Holdings, after: Holdings, clients: usize) -> Value {
    let each = |before: u64, after: u64| ((after as f64 - before as f64) / clients as f64).round();
    json!({
        "resident_bytes": after.resident,
        "resident_bytes_before": before.resident,
        "resident_bytes_per_client": each(before.resident, after.resident),
        "page_table_bytes_per_client": each(before.page_tables, after.page_tables),
        "kernel_stack_bytes_per_client": each(before.kernel_stacks, after.kernel_stacks),
        "threads": after.threads,
        "descriptors": after.descriptors,
    })
}

/// Likes over HTTP, one under way on each connection.
fn put(swarm: &mut Swarm, options: &Options, report: &mut Report) -> Result<()> {
    swarm.progress = bar("warming up", options.warmup as usize);
    let deadline = Instant::now() + options.timeout;
    swarm.aim(swarm.crowd.checker.ceiling() + options.warmup);
    swarm.crowd.request(options.warmup)?;
    swarm.reach(deadline)?;
    swarm.crowd.answers.clear();
    swarm.base += options.warmup;
    swarm.progress = bar("requests", options.likes as usize);
    swarm.aim(swarm.crowd.checker.ceiling() + options.likes);
    let meter = Meter::start(swarm, options)?;
    swarm.crowd.request(options.likes)?;
    swarm.reach(meter.began + options.timeout)?;
    let answers = std::mem::take(&mut swarm.crowd.answers);
    let requests = answers.len() as u64;
    let time = meter.stop(swarm, report)?;
    report.insert("requests_per_second".into(), rate(requests, time));
    report.insert("answer_us".into(), summary(answers));
    Ok(())
}

/// What there is before clients are stuck, in bytes.
struct Stuck {
    resident: Option<(Process, u64)>,
    sockets: Option<u64>,
}

impl Stuck {
    fn look(server: Option<Process>) -> Result<Self> {
        let resident = server.map(|server| Ok((server, holdings(server)?.resident))).transpose()?;
        Ok(Self { resident, sockets: socket_memory().ok() })
    }

    /// Reports what has come since: to the server, and in the buffers of both ends of all sockets of the machine.
    fn compare(&self, stuck: usize, report: &mut Report) -> Result<()> {
        if let Some((server, before)) = self.resident {
            let growth = holdings(server)?.resident as i64 - before as i64;
            report.insert("resident_growth_bytes".into(), growth.into());
        }
        if let (Some(before), Ok(after)) = (self.sockets, socket_memory()) {
            let each = after.saturating_sub(before) / stuck as u64;
            report.insert("socket_bytes_per_stuck_client".into(), each.into());
        }
        Ok(())
    }
}

/// Time, CPU time and deliveries between two moments.
struct Meter {
    began: Instant,
    frames: u64,
    server: Option<(Process, Cpu)>,
    load: Option<Cpu>,
    likes: u64,
}

impl Meter {
    fn start(swarm: &Swarm, options: &Options) -> Result<Self> {
        let server = options.pid.map(Process).map(|server| Ok((server, cpu(server)?))).transpose()?;
        let load = this().cpu().ok();
        Ok(Self { began: Instant::now(), frames: swarm.crowd.frames, server, load, likes: options.likes })
    }

    fn stop(&self, swarm: &Swarm, report: &mut Report) -> Result<Duration> {
        let time = self.began.elapsed();
        let frames = swarm.crowd.frames - self.frames;
        report.insert("seconds".into(), seconds(time));
        report.insert("deliveries".into(), frames.into());
        report.insert("deliveries_per_second".into(), rate(frames, time));
        if let (Some(earlier), Ok(now)) = (&self.load, this().cpu()) {
            let share = now.since(earlier).as_secs_f64() / time.as_secs_f64();
            report.insert("load_cpu_share".into(), round(share).into());
        }
        if let Some((server, earlier)) = &self.server {
            let used = cpu(*server)?.since(earlier);
            report.insert("server_cpu_seconds".into(), seconds(used));
            report.insert("server_cpu_us_per_like".into(), micros_each(used, self.likes));
            if frames > 0 {
                report.insert("server_cpu_us_per_delivery".into(), micros_each(used, frames));
            }
        }
        Ok(time)
    }
}

fn this() -> Process {
    Process(std::process::id())
}

fn cpu(process: Process) -> Result<Cpu> {
    process
        .cpu()
        .map_err(|error| Failure::setup(format!("failed to read the CPU time of process {}: {error}", process.0)))
}

fn holdings(process: Process) -> Result<Holdings> {
    let holdings = process.holdings();
    holdings.map_err(|error| Failure::setup(format!("failed to read the memory of process {}: {error}", process.0)))
}

fn seconds(time: Duration) -> Value {
    ((time.as_secs_f64() * 1e6).round() / 1e6).into()
}

fn rate(number: u64, time: Duration) -> Value {
    (number as f64 / time.as_secs_f64()).round().into()
}

fn micros_each(time: Duration, number: u64) -> Value {
    round(time.as_secs_f64() * 1e6 / number as f64).into()
}

/// A progress bar on standard error if that is a terminal, else nothing.
fn bar(what: &'static str, length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}");
    ProgressBar::new(length as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(what)
}

fn raise_descriptor_limit(needed: usize) -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed as u64) {
        return Ok(());
    }
    if maximum.is_some_and(|maximum| maximum < needed as u64) {
        return Err(Failure::new(
            Kind::Setup,
            format!("{needed} descriptors are needed, but the limit is {}", maximum.unwrap_or_default()),
        ));
    }
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .map_err(|error| Failure::setup(format!("failed to raise the limit of descriptors: {error}")))
}
