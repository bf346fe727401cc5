//! Specs to a plan: names resolved, the graph checked, every schema bound. A stage whose input is at fault is passed over,
//! so that a fault is told once and not again by everything downstream.

use std::collections::HashMap;

use crate::component::{Fault, Name};
use crate::flow::outbox::Port;
use crate::flow::schema::{StreamSchema, dead_letter_schema};
use crate::operator::{Bound, OperatorSpec};
use crate::pipeline::plan::{Edge, Plan, PlannedOperator, PlannedSink, PlannedSource};
use crate::pipeline::read::{Read, ReadSource, ReadStage};

/// Everything by its number: sources first, then operators, then sinks, in the order of the file.
struct Graph {
    /// The name of every stage.
    names: Vec<Name>,
    by_name: HashMap<String, usize>,
    sources: usize,
    operators: usize,
    /// What each stage reads; empty for sources. `None` is an input that does not exist.
    inputs: Vec<Vec<Option<Edge>>>,
    /// How the file writes those inputs.
    written: Vec<Vec<Name>>,
}

/// Binds all that can be bound. `None` where there is no plan to give.
pub(crate) fn bind(read: Read, faults: &mut Vec<Fault>) -> Option<Plan> {
    if read.sources.is_empty() || read.sinks.is_empty() {
        let what =
            if read.sources.is_empty() { "source: nothing would come in" } else { "sink: nothing would come out" };
        faults.push(Fault::new(0..0, format!("the pipeline has no {what}")));
    }
    let graph = Graph::of(&read, faults);
    graph.unread(faults);
    let order = graph.order(faults);
    let Read { name, epoch, channel_batches, batch_rows, batch_bytes, sources, operators, sinks } = read;
    let shared: Vec<Option<Name>> =
        sources.iter().map(|s| s.spec.as_ref().and_then(|spec| spec.shared_group().cloned())).collect();
    let mut binding = Binding { graph: &graph, faults, outputs: vec![[None, None]; graph.names.len()] };
    let sources: Vec<_> =
        sources.into_iter().enumerate().map(|(stage, source)| binding.source(stage, source)).collect();
    let mut specs: Vec<Option<ReadStage<dyn OperatorSpec>>> = operators.into_iter().map(Some).collect();
    let mut place: HashMap<usize, usize> = (0..graph.sources).map(|stage| (stage, stage)).collect();
    let mut bound = Vec::new();
    for stage in order? {
        let operator = specs[stage - graph.sources].take().expect("each stands once in the order");
        if operator.spec.as_ref().is_some_and(|spec| spec.gathers()) {
            binding.refuse_shared(stage, &shared);
        }
        place.insert(stage, graph.sources + bound.len());
        bound.push(binding.operator(stage, operator));
    }
    let first_sink = graph.sources + graph.operators;
    let sinks: Vec<_> =
        sinks.into_iter().enumerate().map(|(index, sink)| binding.sink(first_sink + index, sink)).collect();
    let mut operators: Vec<PlannedOperator> = bound.into_iter().collect::<Option<_>>()?;
    let mut sinks: Vec<PlannedSink> = sinks.into_iter().collect::<Option<_>>()?;
    let inputs = operators.iter_mut().map(|o| &mut o.inputs).chain(sinks.iter_mut().map(|s| &mut s.inputs));
    inputs.flatten().for_each(|edge| edge.from = place[&edge.from]);
    let sources = sources.into_iter().collect::<Option<_>>()?;
    Some(Plan { name, epoch, channel_batches, batch_rows, batch_bytes, sources, operators, sinks })
}

impl Graph {
    fn of(read: &Read, faults: &mut Vec<Fault>) -> Self {
        let sources = read.sources.iter().map(|source| (&source.name, &[][..]));
        let operators = read.operators.iter().map(|operator| (&operator.name, operator.inputs.as_slice()));
        let sinks = read.sinks.iter().map(|sink| (&sink.name, sink.inputs.as_slice()));
        let all: Vec<(&Name, &[Name])> = sources.chain(operators).chain(sinks).collect();
        let mut by_name: HashMap<String, usize> = HashMap::new();
        for (stage, (name, _)) in all.iter().enumerate() {
            if let Some(first) = by_name.insert(name.text.clone(), stage) {
                faults.push(name.fault(format!("the name `{}` is taken already", name.text)));
                by_name.insert(name.text.clone(), first);
            }
        }
        let mut graph = Self {
            names: all.iter().map(|(name, _)| (*name).clone()).collect(),
            by_name,
            sources: read.sources.len(),
            operators: read.operators.len(),
            inputs: Vec::new(),
            written: all.iter().map(|(_, inputs)| inputs.to_vec()).collect(),
        };
        for (stage, (_, inputs)) in all.iter().enumerate() {
            let mut edges = Vec::new();
            for (at, input) in inputs.iter().enumerate() {
                let edge = graph.edge(stage, input, faults);
                if edge.is_some() && edges.contains(&edge) {
                    faults.push(inputs[at].fault(format!("`{}` stands in `inputs` twice", input.text)));
                } else {
                    edges.push(edge);
                }
            }
            graph.inputs.push(edges);
        }
        graph
    }

    fn is_sink(&self, stage: usize) -> bool {
        stage >= self.sources + self.operators
    }

    /// The stage and output that an input's text means.
    fn edge(&self, stage: usize, input: &Name, faults: &mut Vec<Fault>) -> Option<Edge> {
        let (name, port) = match input.text.split_once('.') {
            None => (input.text.as_str(), Port::Main),
            Some((name, _)) => (name, Port::Side),
        };
        let Some(&from) = self.by_name.get(name) else {
            let known = self.names.iter().enumerate().filter(|(known, _)| *known != stage && !self.is_sink(*known));
            let known: Vec<&str> = known.map(|(_, name)| name.text.as_str()).collect();
            let fault = input.fault(format!("there is no source or operator `{name}`"));
            faults.push(fault.nearest(name, known.iter().copied()));
            return None;
        };
        if self.is_sink(from) {
            faults.push(input.fault(format!("`{name}` is a sink: nothing comes out of it")));
            return None;
        }
        Some(Edge { from, port })
    }

    /// What nobody reads is a mistake, most likely a misspelt input.
    fn unread(&self, faults: &mut Vec<Fault>) {
        let read: Vec<usize> = self.inputs.iter().flatten().flatten().map(|edge| edge.from).collect();
        for stage in 0..self.sources + self.operators {
            if !read.contains(&stage) {
                let name = &self.names[stage];
                let fault = name.fault(format!("nothing reads `{}`", name.text));
                faults.push(fault.help("name it in the `inputs` of an operator or a sink, or take it out"));
            }
        }
    }

    /// The operators, each after its inputs; `None`, and a fault, where they go round in a circle.
    fn order(&self, faults: &mut Vec<Fault>) -> Option<Vec<usize>> {
        let mut order = Vec::new();
        let mut waiting: Vec<usize> = (self.sources..self.sources + self.operators).collect();
        while !waiting.is_empty() {
            let (ready, rest): (Vec<usize>, Vec<usize>) = waiting
                .iter()
                .partition(|stage| self.inputs[**stage].iter().flatten().all(|edge| !waiting.contains(&edge.from)));
            if ready.is_empty() {
                faults.push(self.cycle(rest[0], &rest));
                return None;
            }
            order.extend(ready);
            waiting = rest;
        }
        Some(order)
    }

    /// Follows inputs among those that wait until a stage comes twice.
    fn cycle(&self, start: usize, waiting: &[usize]) -> Fault {
        let mut path = vec![start];
        loop {
            let at = path[path.len() - 1];
            let edges = self.inputs[at].iter().flatten();
            let next =
                edges.map(|edge| edge.from).find(|from| waiting.contains(from)).expect("whoever waits, waits for one");
            if let Some(first) = path.iter().position(|stage| *stage == next) {
                let mut names: Vec<&str> =
                    path[first..].iter().rev().map(|stage| self.names[*stage].text.as_str()).collect();
                names.insert(0, names[names.len() - 1]);
                return self.names[next].fault(format!("these read each other in a circle: {}", names.join(" → ")));
            }
            path.push(next);
        }
    }
}

struct Binding<'a> {
    graph: &'a Graph,
    faults: &'a mut Vec<Fault>,
    /// What each stage emits at each output, as far as it could be bound.
    outputs: Vec<[Option<(&'static str, StreamSchema)>; 2]>,
}

impl Binding<'_> {
    fn source(&mut self, stage: usize, source: ReadSource) -> Option<PlannedSource> {
        self.outputs[stage][1] = Some(("dead_letter", dead_letter_schema()));
        if let Some(spec) = &source.spec {
            self.faults.extend(spec.check());
        }
        let (spec, columns, decoder) = (source.spec?, source.columns?, source.decoder?);
        let wrong = decoder.check(&columns);
        if !wrong.is_empty() {
            self.faults.extend(wrong);
            return None;
        }
        let output = StreamSchema {
            columns: columns.schema(),
            time: columns.time,
            out_of_orderness: source.time.out_of_orderness,
        };
        self.outputs[stage][0] = Some(("", output.clone()));
        let ReadSource { name, kind, time, on_error, .. } = source;
        Some(PlannedSource { name, kind, spec, decoder, columns, time, on_error, output })
    }

    fn operator(&mut self, stage: usize, operator: ReadStage<dyn OperatorSpec>) -> Option<PlannedOperator> {
        let (edges, input) = self.input(stage)?;
        match operator.spec?.bind(&input) {
            Ok(Bound { output, side, operator: running, about }) => {
                self.outputs[stage] = [Some(("", output.clone())), side.clone()];
                let (name, kind) = (operator.name, operator.kind);
                Some(PlannedOperator { name, inputs: edges, kind, about, input, output, side, operator: running })
            }
            Err(wrong) => {
                self.faults.extend(wrong);
                None
            }
        }
    }

    fn sink(&mut self, stage: usize, sink: ReadStage<dyn crate::sink::SinkSpec>) -> Option<PlannedSink> {
        let (edges, input) = self.input(stage)?;
        let spec = sink.spec?;
        self.faults.extend(spec.check(&input));
        Some(PlannedSink { name: sink.name, inputs: edges, kind: sink.kind, spec, input })
    }

    /// The rows that a stage takes: all its inputs must have the same columns.
    fn input(&mut self, stage: usize) -> Option<(Vec<Edge>, StreamSchema)> {
        let mut all: Option<StreamSchema> = None;
        let mut edges = Vec::new();
        for (edge, written) in self.graph.inputs[stage].iter().zip(&self.graph.written[stage]) {
            let edge = (*edge)?;
            let schema = self.output(edge, written)?;
            if let Some(first) = &mut all {
                if let Some(why) = difference(first, &schema) {
                    let first = &self.graph.written[stage][0].text;
                    self.faults
                        .push(written.fault(format!("`{}` does not have the rows of `{first}`: {why}", written.text)));
                    return None;
                }
                first.out_of_orderness = first.out_of_orderness.max(schema.out_of_orderness);
            } else {
                all = Some(schema);
            }
            edges.push(edge);
        }
        Some((edges, all?))
    }

    fn output(&mut self, edge: Edge, written: &Name) -> Option<StreamSchema> {
        let name = &self.graph.names[edge.from].text;
        let known = edge.port == Port::Main || self.outputs[edge.from][0].is_some() || edge.from < self.graph.sources;
        match (&self.outputs[edge.from][edge.port as usize], written.text.split_once('.')) {
            (Some((_, schema)), None) => Some(schema.clone()),
            (Some((side, schema)), Some((_, after))) if *side == after => Some(schema.clone()),
            (Some((side, _)), Some((_, after))) => {
                let fault =
                    written.fault(format!("`{name}` has no output `{after}`; it has `{name}` and `{name}.{side}`"));
                self.faults.push(fault.help(format!("did you mean `{name}.{side}`?")));
                None
            }
            (None, Some((_, after))) if known => {
                self.faults.push(written.fault(format!("`{name}` has no output `{after}`; it has only `{name}`")));
                None
            }
            // Its own fault was told already.
            (None, _) => None,
        }
    }

    /// A shared subscription has no key affinity: refuses to gather by key what comes from one.
    fn refuse_shared(&mut self, stage: usize, shared: &[Option<Name>]) {
        let (mut seen, mut stack) = (vec![stage], vec![stage]);
        while let Some(at) = stack.pop() {
            if let Some(group) = shared.get(at).and_then(Option::as_ref) {
                let (source, gathering) = (&self.graph.names[at].text, &self.graph.names[stage].text);
                let what = format!(
                    "`shared_group` of `{source}` feeds `{gathering}`, which gathers rows by key: the broker deals the messages \
                     of one device to all members of the group, so each would compute a part of the window"
                );
                let help = "leave `shared_group` out and give each instance topics of its own, such as `sites/north/…` and `sites/south/…`";
                self.faults.push(group.fault(what).help(help));
            }
            for edge in self.graph.inputs[at].iter().flatten() {
                if !seen.contains(&edge.from) {
                    seen.push(edge.from);
                    stack.push(edge.from);
                }
            }
        }
    }
}

/// The first column in which two streams differ.
fn difference(a: &StreamSchema, b: &StreamSchema) -> Option<String> {
    let (left, right) = (a.columns.fields(), b.columns.fields());
    for (left, right) in left.iter().zip(right) {
        if left.name() != right.name() || left.data_type() != right.data_type() {
            return Some(format!(
                "`{}` ({}) stands where `{}` ({}) is expected",
                right.name(),
                right.data_type(),
                left.name(),
                left.data_type()
            ));
        }
        if left.is_nullable() != right.is_nullable() {
            return Some(format!("`{}` may be null in one and not in the other", left.name()));
        }
    }
    if left.len() != right.len() {
        return Some(format!("{} columns where {} are expected", right.len(), left.len()));
    }
    (a.time != b.time).then(|| "another column is its event time".to_owned())
}
