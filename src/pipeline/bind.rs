//! Specs to a plan: names resolved, the graph checked, every schema bound. A stage whose input is at fault is passed over,
//! so that a fault is told once and not again by everything downstream.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use arrow::datatypes::Field;

use crate::component::{Fault, Name, nearest};
use crate::flow::outbox::Port;
use crate::flow::schema::{StreamSchema, dead_letter_schema};
use crate::format::columns::{Column, From as Origin};
use crate::operator::{Bound, OperatorSpec};
use crate::pipeline::plan::{Edge, Plan, PlannedOperator, PlannedSink, PlannedSource};
use crate::pipeline::print::type_word;
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
    /// Who is probably meant by inputs that do not exist.
    meant: Vec<String>,
    /// All inputs could be read.
    legible: bool,
}

/// Binds all that can be bound. `None` where there is no plan to give. `expanded` says that no `${…}` was left as it is:
/// it may have been the name of an input.
pub(crate) fn bind(read: Read, expanded: bool, faults: &mut Vec<Fault>) -> Option<Plan> {
    for (none, what) in [
        (read.sources.is_empty(), "no source: nothing would come in; write a table `[sources.NAME]`"),
        (read.sinks.is_empty(), "no sink: nothing would come out; write a table `[sinks.NAME]`"),
    ] {
        if none {
            faults.push(Fault::new(read.at.clone(), format!("the pipeline has {what}")));
        }
    }
    let graph = Graph::of(&read, faults);
    // Where inputs could not be read, or nobody is there to read, something else is wrong.
    if expanded && graph.legible && !read.sinks.is_empty() {
        graph.unread(faults);
    }
    let order = graph.order(faults);
    let Read {
        at,
        name,
        epoch,
        channel_batches,
        batch_rows,
        batch_bytes,
        durability,
        memory,
        sources,
        operators,
        sinks,
    } = read;
    let shared: Vec<Option<Name>> =
        sources.iter().map(|s| s.spec.as_ref().and_then(|spec| spec.shared_group().cloned())).collect();
    let mut binding = Binding { graph: &graph, faults, outputs: vec![[None, None]; graph.names.len()] };
    let sources: Vec<_> =
        sources.into_iter().enumerate().map(|(stage, source)| binding.source(stage, source)).collect();
    let mut specs: Vec<Option<ReadStage<dyn OperatorSpec>>> = operators.into_iter().map(Some).collect();
    let mut place: HashMap<usize, usize> = (0..graph.sources).map(|stage| (stage, stage)).collect();
    let mut bound = Vec::new();
    for stage in order {
        let operator = specs[stage - graph.sources].take().expect("each stands once in the order");
        if operator.spec.as_ref().is_some_and(|spec| spec.gathers()) {
            binding.refuse_shared(stage, &shared);
        }
        place.insert(stage, graph.sources + bound.len());
        bound.push(binding.operator(stage, operator));
    }
    let lost = bound.len() < graph.operators;
    let first_sink = graph.sources + graph.operators;
    let sinks: Vec<_> =
        sinks.into_iter().enumerate().map(|(index, sink)| binding.sink(first_sink + index, sink)).collect();
    let whole = (!lost).then(|| {
        let sources = sources.into_iter().collect::<Option<_>>()?;
        let mut operators: Vec<PlannedOperator> = bound.into_iter().collect::<Option<_>>()?;
        let mut sinks: Vec<PlannedSink> = sinks.into_iter().collect::<Option<_>>()?;
        let inputs = operators.iter_mut().map(|o| &mut o.inputs).chain(sinks.iter_mut().map(|s| &mut s.inputs));
        inputs.flatten().for_each(|edge| edge.from = place[&edge.from]);
        let file = String::new();
        Some(Plan {
            name,
            epoch,
            channel_batches,
            batch_rows,
            batch_bytes,
            durability,
            memory,
            file,
            sources,
            operators,
            sinks,
        })
    });
    let plan = whole.flatten();
    if plan.is_none() && faults.is_empty() {
        // A component that refused its table without a word; that is a mistake of ours.
        faults.push(Fault::new(at, "the pipeline cannot be planned, and no part of it said why"));
    }
    plan
}

impl Graph {
    fn of(read: &Read, faults: &mut Vec<Fault>) -> Self {
        let sources = read.sources.iter().map(|source| (&source.name, &[][..]));
        let operators = read.operators.iter().map(|o| (&o.name, o.inputs.as_deref().unwrap_or_default()));
        let sinks = read.sinks.iter().map(|sink| (&sink.name, sink.inputs.as_deref().unwrap_or_default()));
        let all: Vec<(&Name, &[Name])> = sources.chain(operators).chain(sinks).collect();
        let mut by_name: HashMap<String, usize> = HashMap::new();
        for (stage, (name, _)) in all.iter().enumerate() {
            match by_name.entry(name.text.clone()) {
                Entry::Vacant(free) => {
                    free.insert(stage);
                }
                Entry::Occupied(taken) => {
                    let first = section(*taken.get(), read);
                    let fault = name.fault(format!("the name `{}` is taken: a {first} has it", name.text));
                    faults.push(fault.help("sources, operators and sinks share their names; rename one of the two"));
                }
            }
        }
        let mut graph = Self {
            names: all.iter().map(|(name, _)| (*name).clone()).collect(),
            by_name,
            sources: read.sources.len(),
            operators: read.operators.len(),
            inputs: Vec::new(),
            written: all.iter().map(|(_, inputs)| inputs.to_vec()).collect(),
            meant: Vec::new(),
            legible: read.operators.iter().all(|operator| operator.inputs.is_some())
                && read.sinks.iter().all(|sink| sink.inputs.is_some()),
        };
        for (stage, (_, inputs)) in all.iter().enumerate() {
            let mut edges = Vec::new();
            for (at, input) in inputs.iter().enumerate() {
                let edge = graph.edge(stage, input, faults);
                if inputs[..at].iter().any(|earlier| earlier.text == input.text) {
                    faults.push(input.fault(format!("`{}` stands in `inputs` twice", input.text)));
                }
                edges.push(edge);
            }
            graph.inputs.push(edges);
        }
        graph
    }

    fn is_sink(&self, stage: usize) -> bool {
        stage >= self.sources + self.operators
    }

    /// The stage and output that an input's text means.
    fn edge(&mut self, stage: usize, input: &Name, faults: &mut Vec<Fault>) -> Option<Edge> {
        let (name, port) = match input.text.split_once('.') {
            None => (input.text.as_str(), Port::Main),
            Some((name, _)) => (name, Port::Side),
        };
        let Some(&from) = self.by_name.get(name) else {
            let known = self.names.iter().enumerate().filter(|(known, _)| *known != stage && !self.is_sink(*known));
            let known: Vec<&str> = known.map(|(_, name)| name.text.as_str()).collect();
            let fault = input.fault(format!("there is no source or operator `{name}`"));
            let meant = nearest(name, known.iter().copied()).map(str::to_owned);
            faults.push(fault.nearest(name, known.iter().copied()));
            self.meant.extend(meant);
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
            let name = &self.names[stage];
            // Whoever has a name that is taken cannot be read.
            let named = self.by_name[&name.text] == stage;
            if named && !read.contains(&stage) && !self.meant.contains(&name.text) {
                let fault = name.fault(format!("nothing reads `{}`", name.text));
                faults.push(fault.help("name it in the `inputs` of an operator or a sink, or take it out"));
            }
        }
    }

    /// The operators, each after its inputs. Those that go round in a circle are faults; they and those that read
    /// from them are left out.
    fn order(&self, faults: &mut Vec<Fault>) -> Vec<usize> {
        let (mut order, mut lost) = (Vec::new(), Vec::new());
        let mut waiting: Vec<usize> = (self.sources..self.sources + self.operators).collect();
        let reads =
            |stage: usize, of: &[usize]| self.inputs[stage].iter().flatten().any(|edge| of.contains(&edge.from));
        while !waiting.is_empty() {
            let (rest, ready): (Vec<usize>, Vec<usize>) = waiting.iter().partition(|stage| reads(**stage, &waiting));
            if ready.is_empty() {
                let circle = self.circle(&waiting);
                faults.push(self.round(&circle));
                waiting.retain(|stage| !circle.contains(stage));
                lost.extend(circle);
                continue;
            }
            for stage in ready {
                if reads(stage, &lost) { lost.push(stage) } else { order.push(stage) }
            }
            waiting = rest;
        }
        order
    }

    /// Follows inputs among those that wait, each for another, until a stage comes twice: the way between, along which
    /// rows would flow.
    fn circle(&self, waiting: &[usize]) -> Vec<usize> {
        let mut path = vec![waiting[0]];
        loop {
            let edges = self.inputs[path[path.len() - 1]].iter().flatten();
            let next =
                edges.map(|edge| edge.from).find(|from| waiting.contains(from)).expect("whoever waits, waits for one");
            if let Some(first) = path.iter().position(|stage| *stage == next) {
                let mut circle = path.split_off(first);
                circle.reverse();
                return circle;
            }
            path.push(next);
        }
    }

    fn round(&self, circle: &[usize]) -> Fault {
        // Told from the stage that stands first in the file, whichever was met first.
        let first = (0..circle.len()).min_by_key(|at| circle[*at]).unwrap_or(0);
        let stages = circle[first..].iter().chain(&circle[..=first]);
        let names: Vec<&str> = stages.map(|stage| self.names[*stage].text.as_str()).collect();
        let fault =
            self.names[circle[first]].fault(format!("operators read each other in a circle: {}", names.join(" → ")));
        fault.help("rows flow in one direction: take one of them out of the `inputs` of the next")
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
        let mut wrong = decoder.check(&columns);
        if !decoder.has_inner() {
            let inner = columns.columns.iter().filter(|column| matches!(column.from, Origin::Inner(_)));
            let fault = |column: &Column| {
                let name = &column.name;
                name.fault(format!("column `{}`: the payload has none within: `decode.inner` is missing", name.text))
            };
            wrong.extend(inner.map(fault));
        }
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
        let ReadSource { name, kind, time, on_error, decoders, .. } = source;
        Some(PlannedSource { name, kind, spec, decoder, columns, time, on_error, decoders, output })
    }

    fn operator(&mut self, stage: usize, operator: ReadStage<dyn OperatorSpec>) -> Option<PlannedOperator> {
        let (edges, input) = self.input(stage)?;
        let spec = operator.spec?;
        match spec.bind(&input) {
            Ok(_) if operator.misspelt => None,
            Ok(Bound { output, side, operator: running, about, identity }) => {
                self.outputs[stage] = [Some(("", output.clone())), side.clone()];
                let (name, kind) = (operator.name, operator.kind);
                Some(PlannedOperator {
                    name,
                    inputs: edges,
                    kind,
                    about,
                    input,
                    output,
                    side,
                    operator: running,
                    identity,
                    groups_by: spec.groups_by(),
                })
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

    /// The rows that a stage takes: all its inputs must have the same columns, so one that is known speaks for those
    /// that are not.
    fn input(&mut self, stage: usize) -> Option<(Vec<Edge>, StreamSchema)> {
        let (mut all, mut edges): (Option<(&str, StreamSchema)>, _) = (None, Vec::new());
        for (edge, written) in self.graph.inputs[stage].iter().zip(&self.graph.written[stage]) {
            let Some(edge) = *edge else { continue };
            let Some(schema) = self.output(edge, written) else { continue };
            edges.push(edge);
            let Some((first, known)) = &mut all else {
                all = Some((&written.text, schema));
                continue;
            };
            if let Some(why) = difference(known, &schema) {
                let what = format!("`{}` does not have the rows of `{first}`: {why}", written.text);
                self.faults.push(
                    written.fault(what).help("what goes into one stage must have the same columns in the same order"),
                );
                return None;
            }
            known.out_of_orderness = known.out_of_orderness.max(schema.out_of_orderness);
        }
        Some((edges, all?.1))
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

/// `source`, `operator` or `sink`.
fn section(stage: usize, read: &Read) -> &'static str {
    let operators = read.sources.len();
    if stage < operators {
        "source"
    } else if stage < operators + read.operators.len() {
        "operator"
    } else {
        "sink"
    }
}

/// The first column in which two streams differ.
fn difference(first: &StreamSchema, other: &StreamSchema) -> Option<String> {
    let (expected, got) = (first.columns.fields(), other.columns.fields());
    for (expected, got) in expected.iter().zip(got) {
        if expected.name() != got.name() || expected.data_type() != got.data_type() {
            let show = |field: &Field| format!("`{}` ({})", field.name(), type_word(field.data_type()));
            return Some(format!("{} stands where {} is expected", show(got), show(expected)));
        }
        if expected.is_nullable() != got.is_nullable() {
            return Some(format!("`{}` may be null in one and not in the other", expected.name()));
        }
    }
    if let Some(missing) = expected.get(got.len()) {
        return Some(format!("it lacks `{}`", missing.name()));
    }
    if let Some(more) = got.get(expected.len()) {
        return Some(format!("it has `{}` besides", more.name()));
    }
    let name = |schema: &StreamSchema| schema.columns.field(schema.time).name().clone();
    (first.time != other.time).then(|| format!("its event time is `{}`, not `{}`", name(other), name(first)))
}
