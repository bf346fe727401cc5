"""How the figures of `durability.py` are shown: one Markdown table for each sort."""


def figure(digits=0, unit=""):
    """How a figure is written; one that was not found is a dash."""
    return lambda value: "–" if value is None else f"{value:,.{digits}f}{unit}"


# Title, columns (heading, key, how it is written), and of which figures.
TABLES = [
    ("kills", [(key, key, figure()) for key in ("kills", "messages", "redelivered", "lost", "duplicated")]),
    ("ingest", [
        ("window", "window", figure()),
        ("durable messages/s", "messages_per_second", figure()),
        ("broker alone", "broker_alone", figure()),
        ("cores", "cores", figure(2)),
        ("broker's", "broker_cores", figure(2)),
        ("messages", "messages", figure()),
        ("lost", "lost", figure()),
        ("duplicated", "duplicated", figure()),
        ("replayed messages/s", "replayed_per_second", figure()),
        ("over ingest", "replay_over_ingest", figure(1)),
    ]),
    ("ingest", [
        ("window", "window", figure()),
        ("at messages/s", "rate", figure()),
        ("behind at the end", "behind_ms", figure(0, " ms")),
        ("acknowledged after, p50", "p50_ms", figure(1, " ms")),
        ("p99", "p99_ms", figure(1, " ms")),
        ("most", "max_ms", figure(1, " ms")),
        ("of messages", "acknowledged", figure()),
        ("unacknowledged at once", "most_in_flight", figure()),
    ]),
    ("recovery", [
        ("groups", "groups", figure()),
        ("checkpoints", "checkpoints_mib", figure(1, " MiB")),
        ("journal behind", "journal_mib", figure(0, " MiB")),
        ("messages in it", "messages", figure()),
        ("ready after", "ready_seconds", figure(2, " s")),
        ("caught up after", "row_seconds", figure(2, " s")),
        ("resident", "resident_mib", figure(0, " MiB")),
    ]),
]


def show(found):
    on = found["machine"]
    print(f"{on['cores']} cores ({on['cpu']}), {on['memory_gib']} GiB, {on['file_system']}; 4 KiB and fdatasync: p50 "
          f"{on['fdatasync_p50_ms']:.2f} ms, p99 {on['fdatasync_p99_ms']:.2f} ms; {on['broker']}; load {on['load']:.1f}")
    for part, columns in TABLES:
        if found[part]:
            print("\n| " + " | ".join(head for head, *_ in columns) + " |\n|" + " ---: |" * len(columns))
        for row in found[part]:
            print("| " + " | ".join(written(row.get(key)) for _, key, written in columns) + " |")
