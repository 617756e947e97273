"""The mesh's own metrics (`gossamer_*`), read from a daemon at every scrape.

Invariant: reading one changes nothing, and no label's set of values grows with traffic.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from gossip.member import State
from peer.admin.metrics import Gauge, GaugeValue
from peer.certify import CREDENTIAL
from peer.changeover import waiting_count
from peer.dataplane import TOLD_REASONS
from peer.rights import Reason
from peer.signing import FAILURES
from trust.groupkey import GroupKey
from trust.sessionwire import Reason as Refusal

if TYPE_CHECKING:
    from peer.daemon import Daemon


def make(name: str, words: str, read: Callable[[], GaugeValue], *labels: str) -> Gauge:
    """One of them."""
    return Gauge(name=f"gossamer_{name}", help=words, read=read, labels=labels)


def ca_gauges(daemon: "Daemon") -> list[Gauge]:
    """Those of the authority: what this peer had signed, and what it signed for others."""
    custody, asked, answered = daemon.custody, daemon.signing.statistics, daemon.cosigner.statistics

    def failed() -> dict[tuple[str, ...], float]:
        counts = asked().failed
        return {(reason,): counts.get(reason, 0) for reason in FAILURES}

    def refused() -> dict[tuple[str, ...], float]:
        counts = answered().refused
        return {(reason.value,): counts.get(reason.value, 0) for reason in Refusal}

    def latencies() -> dict[tuple[str, ...], float]:
        recent = sorted(asked().recent_s)
        at = {"0.5": 0.5, "0.95": 0.95, "1": 1.0}
        return {(name,): recent[int(share * (len(recent) - 1))] for name, share in at.items() if recent}

    def of_group(read: Callable[[GroupKey], float]) -> Callable[[], float]:
        return lambda: -1 if custody.group is None else read(custody.group)

    def letters() -> dict[tuple[str, ...], float]:
        counts = asdict(daemon.succession.ceremonies.traffic) | {"lost": daemon.succession.letters.lost}
        return {(name,): count for name, count in counts.items()}

    return [
        make("ca_epoch", "Epoch of the signers; -1 while they are not known.", of_group(lambda g: g.epoch)),
        make("ca_threshold", "How many signers a signature takes.", of_group(lambda g: g.threshold)),
        make("ca_signers", "How many signers there are.", of_group(lambda g: len(g.members))),
        make(
            "ca_signers_reachable",
            "Signers that are not known to be out of reach from here.",
            of_group(lambda _: daemon.signing.reachable),
        ),
        make("ca_signatures_total", "Signatures this peer obtained.", lambda: asked().completed),
        make("ca_signatures_failed_total", "Signatures it did not get.", failed, "reason"),
        make("ca_signature_seconds_total", "Time it waited for those it got.", lambda: asked().seconds),
        make("ca_signature_seconds", "Of the latest ones.", latencies, "quantile"),
        make("ca_signers_excluded_total", "Signers caught lying.", lambda: asked().excluded),
        make("ca_shares_total", "Shares this peer gave as a signer.", lambda: answered().signer.granted),
        make("ca_shares_refused_total", "Shares it refused.", refused, "reason"),
        make("ca_nonces", "Commitments it keeps nonces for.", lambda: answered().signer.outstanding),
        make("ca_paced_total", "Requests it took later than they came.", lambda: answered().paced),
        make(
            "ca_tokens_settled_epoch",
            "Epoch up to which uses of tokens are known.",
            lambda: daemon.handover.settled.epoch,
        ),
        make(
            "ca_changing",
            "1 while this peer takes part in a change of the signers.",
            lambda: float(daemon.succession.status is not None),
        ),
        make(
            "ca_roots",
            "Roots that count: 2 while the mesh goes over to another one.",
            lambda: len(daemon.membership.roots.accepted(daemon.clock.now())),
        ),
        make(
            "ca_rollover_waiting",
            "Live members that have not said that they accept the newest root, while an older one counts.",
            lambda: waiting_count(daemon),
        ),
        make(
            "ca_root_conflicts",
            "Roots of which two successors were signed.",
            lambda: len(daemon.membership.roots.conflicts),
        ),
        make("ca_shares_held", "Shares of the root that are kept here.", lambda: len(custody.shares)),
        make("ca_share_lacking", "1 while this signer's share is lost.", lambda: float(custody.lacking)),
        make("ca_ceremonies", "What came and went for ceremonies.", letters, "event"),
        make("ca_token_uses", "Uses of tokens it keeps.", lambda: len(daemon.issuer.rules.ledger)),
    ]


def gossip_gauges(daemon: "Daemon") -> list[Gauge]:
    """Those of membership: how this peer stands with the others, and what it costs."""
    statistics, lateness = daemon.node.engine.statistics, daemon.driver.lateness

    def queued() -> dict[tuple[str, ...], float]:
        now = statistics()
        return {("statements",): now.updates_queued, ("records",): now.payloads_queued}

    def dropped() -> dict[tuple[str, ...], float]:
        now = statistics()
        return {("statements",): now.updates_dropped, ("records",): now.payloads_dropped}

    return [
        make(
            "gossip_doubt",
            "How far this peer distrusts its own probes: 0 not at all, 7 at most.",
            lambda: statistics().health,
        ),
        make(
            "gossip_refutations_total",
            "Accusations that this peer refuted.",
            lambda: statistics().refutations,
        ),
        make("gossip_datagrams_sent_total", "Datagrams sent.", lambda: statistics().datagrams_sent),
        make("gossip_bytes_sent_total", "Bytes of them.", lambda: statistics().bytes_sent),
        make("gossip_rejected_total", "What others sent and was refused.", lambda: statistics().rejected),
        make("gossip_streams_failed_total", "Streams not to be had.", lambda: statistics().syncs_failed),
        make("gossip_queued", "What waits to be told.", queued, "queue"),
        make("gossip_dropped_total", "What full queues lost.", dropped, "queue"),
        make("process_late_total", "Timers that fired 0.1 s late or later.", lambda: lateness.count),
        make("process_late_seconds_total", "How late they were in all.", lambda: lateness.seconds),
    ]


def gauges(daemon: "Daemon") -> list[Gauge]:
    """All of them."""
    engine, journal = daemon.node.engine, daemon.journal

    def members() -> dict[tuple[str, ...], float]:
        states = [member.state for member in engine.members()]
        return {(state.value,): states.count(state) for state in State}

    def expiries() -> dict[tuple[str, ...], float]:
        now = daemon.clock.now()
        return {(name,): svid.not_after - now for name, svid in daemon.certifier.held.items()}

    def failing() -> dict[tuple[str, ...], float]:
        now, failures = daemon.clock.now(), daemon.certifier.failures
        names = (*daemon.certifier.held, *failures, CREDENTIAL)
        return {(name,): now - failures[name].since if name in failures else 0.0 for name in names}

    def standings() -> dict[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = {(level,): 0 for level in ("ok", "warn", "fail")}
        for name in (*daemon.outlook.wanted_identities(), CREDENTIAL):
            found[daemon.certifier.standing(name).level,] += 1
        return found

    def attempts() -> dict[tuple[str, ...], float]:
        certifier = daemon.certifier
        return {("granted",): certifier.renewed_total, ("failed",): certifier.failed_total}

    def ignored() -> dict[tuple[str, ...], float]:
        return {(kind,): sum(reasons.values()) for kind, reasons in daemon.folder.ignored.items()}

    def refused() -> dict[tuple[str, ...], float]:
        found: dict[tuple[str, ...], float] = {(reason.value,): 0 for reason in Reason}
        for (_, reason), (count, _) in daemon.folder.refused.items():
            found[reason.value,] += count
        return found

    def policies() -> dict[tuple[str, ...], float]:
        accepted = [status.accepted for status in daemon.dataplane.statuses.values()]
        return {("true",): accepted.count(True), ("false",): accepted.count(False)}

    def set_aside() -> dict[tuple[str, ...], float]:
        reasons = [status.reason for _, status in daemon.dataplane.set_aside.values()]
        return {(reason,): reasons.count(reason) for reason in TOLD_REASONS}

    held = journal.statistics
    return [
        make("members", "Members as this peer sees them.", members, "state"),
        make("journal_records", "Records held.", lambda: held().records),
        make("journal_writers", "Writers known.", lambda: held().writers),
        make("journal_waiting", "Records in quarantine.", lambda: held().held_records),
        make("journal_refused_total", "Records refused.", lambda: held().refused),
        make("journal_forked_writers", "Writers that equivocated.", lambda: held().forked_writers),
        make(
            "journal_contradicting_writers",
            "Writers whose records contradicted one another, since the start.",
            lambda: len(journal.recast),
        ),
        make(
            "complaints_untold_total",
            "Complaints about other nodes that were not logged one by one.",
            lambda: daemon.node.complaints.untold,
        ),
        make("records_ignored", "Records whose writer was not entitled.", ignored, "kind"),
        make("policies_refused", "Policy records whose writer was not entitled.", refused, "reason"),
        make("policies", "Policies, by whether they are in force here.", policies, "accepted"),
        make("policies_quarantined", "Policies set aside here, by reason.", set_aside, "reason"),
        make("snapshot_version", "Snapshot the data plane serves.", lambda: daemon.outlook.served_version),
        make("certificate_expiry_seconds", "Life left of a certificate.", expiries, "identity"),
        make(
            "certificate_renewal_failing_seconds",
            "For how long renewal has failed; 0 when it does not.",
            failing,
            "identity",
        ),
        make("certificate_status", "Identities by how their renewal stands.", standings, "status"),
        make("certificate_attempts_total", "Certificates and credentials asked for.", attempts, "result"),
        make(
            "certificate_denials",
            "Certificates that the node they are made out to did not ask for.",
            lambda: sum(1 for _ in daemon.sightings.standing()),
        ),
        make("issuances_recorded", "Certificates in the signers' log.", lambda: len(daemon.issuances.log)),
        make(
            "certificates_unrecorded",
            "Certificates in use that no signer has recorded for minutes.",
            lambda: len(daemon.issuances.unrecorded()),
        ),
        make(
            "issuances_refused_total",
            "Certificates that found no place to wait for the log, or in it.",
            lambda: daemon.issuances.recording.refused + daemon.issuances.awaiting.forgotten,
        ),
        make("revocations", "Revocations in force.", lambda: len(daemon.revocations)),
        make(
            "renewals_failing", "Identities whose renewal fails now.", lambda: len(daemon.certifier.failures)
        ),
        make("ready", "1 when ready.", lambda: float(daemon.ready.is_set())),
        make("streams_refused_total", "Streams that found no place.", lambda: daemon.channels.refused),
        make(
            "disk_failing", "1 while the store cannot be written.", lambda: float(bool(daemon.disk.problem))
        ),
        *gossip_gauges(daemon),
        *ca_gauges(daemon),
        make("oversized_datagrams_total", "Datagrams dropped unread.", lambda: daemon.outlook.oversized),
    ]
