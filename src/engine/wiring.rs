//! The channels of a plan, and what can be measured of its stages.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::engine::account::Counted;
use crate::flow::inbox::Inbox;
use crate::flow::message::Message;
use crate::flow::meter::{CheckpointMeter, Meter, PORTS, SourceMeter};
use crate::flow::outbox::Outbox;
use crate::pipeline::plan::{Edge, Plan};
use crate::telemetry::{Latency, PipelineInfo, Queue, StageInfo, StageKind};

/// The channels of a pipeline, by stage.
pub(crate) struct Wiring {
    receivers: Vec<Vec<Receiver<Message>>>,
    senders: Vec<[Vec<Sender<Message>>; PORTS]>,
    pub(crate) meters: Vec<Arc<Meter>>,
    inputs: Vec<Vec<Edge>>,
    channel_batches: usize,
}

impl Wiring {
    pub(crate) fn of(plan: &Plan) -> Self {
        let inputs: Vec<Vec<Edge>> = std::iter::repeat_n(Vec::new(), plan.sources.len())
            .chain(plan.operators.iter().map(|operator| operator.inputs.clone()))
            .chain(plan.sinks.iter().map(|sink| sink.inputs.clone()))
            .collect();
        let len = inputs.len();
        let mut wiring = Self {
            receivers: vec![Vec::new(); len],
            senders: (0..len).map(|_| Default::default()).collect(),
            meters: (0..len).map(|_| Arc::default()).collect(),
            inputs: inputs.clone(),
            channel_batches: plan.channel_batches,
        };
        for (stage, edges) in inputs.into_iter().enumerate() {
            for Edge { from, port } in edges {
                let (sender, receiver) = bounded(plan.channel_batches);
                wiring.senders[from][port as usize].push(sender);
                wiring.receivers[stage].push(receiver);
            }
        }
        wiring
    }

    pub(crate) fn inbox(&mut self, stage: usize) -> Inbox {
        Inbox::new(std::mem::take(&mut self.receivers[stage]), self.meters[stage].clone())
    }

    pub(crate) fn outbox(&mut self, stage: usize, rows_max: usize) -> Outbox {
        let [main, side] = std::mem::take(&mut self.senders[stage]);
        Outbox::new(main, side, rows_max, self.meters[stage].clone())
    }

    /// Every stage of the plan, as the account and the telemetry see it.
    pub(crate) fn counted(&self, plan: &Plan) -> Vec<Counted> {
        let inputs = |stage: usize| self.inputs[stage].iter().map(|edge| (edge.from, edge.port)).collect();
        let counted = |stage: usize, name: &str, kind, source: Option<Arc<SourceMeter>>, sink| Counted {
            name: name.to_owned(),
            kind,
            meter: self.meters[stage].clone(),
            inputs: inputs(stage),
            source,
            sink,
        };
        let sources = plan.sources.iter().map(|s| (s.name.text.as_str(), s.kind, Some(Arc::default()), false));
        let operators = plan.operators.iter().map(|o| (o.name.text.as_str(), o.kind, None, false));
        let sinks = plan.sinks.iter().map(|s| (s.name.text.as_str(), s.kind, None, true));
        let all = sources.chain(operators).chain(sinks).enumerate();
        all.map(|(stage, (name, kind, source, sink))| counted(stage, name, kind, source, sink)).collect()
    }

    pub(crate) fn info(
        &self,
        plan: &Plan,
        stages: &[Counted],
        latency: Arc<Latency>,
        checkpoints: Arc<CheckpointMeter>,
    ) -> PipelineInfo {
        let stage = |counted: &Counted| {
            // Told by the counters: a handle of the channel here would keep it open when its stage is gone.
            let sent: Vec<_> = counted.inputs.iter().map(|(from, port)| (self.meters[*from].clone(), *port)).collect();
            let received = counted.meter.clone();
            let capacity = self.channel_batches * sent.len();
            StageInfo {
                name: counted.name.clone(),
                kind: match (&counted.source, counted.sink) {
                    (Some(_), _) => StageKind::Source,
                    (None, true) => StageKind::Sink,
                    (None, false) => StageKind::Operator,
                },
                component: counted.kind.to_owned(),
                meter: counted.meter.clone(),
                source: counted.source.clone(),
                queue: (capacity > 0).then(|| {
                    let len = move || {
                        let sent: u64 =
                            sent.iter().map(|(meter, port)| meter.batches_out[*port as usize].load(Relaxed)).sum();
                        let waiting = sent.saturating_sub(received.batches_in.load(Relaxed));
                        usize::try_from(waiting).unwrap_or(usize::MAX).min(capacity)
                    };
                    Queue { len: Box::new(len), capacity }
                }),
            }
        };
        PipelineInfo { name: plan.name.clone(), stages: stages.iter().map(stage).collect(), latency, checkpoints }
    }
}
