"""SLURM's words in plain ones."""

from __future__ import annotations

import pytest

from orchestrator.slurm.reasons import explain, how_it_ended, refusal_in_plain_words


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Priority", "higher priority"),
        ("Resources", "next"),
        ("BeginTime", "two minutes"),
        ("PartitionTimeLimit", "more time than its partition"),
        ("PartitionConfig", "no node of its partition"),
        ("BadConstraints", "no node satisfies"),
        ("JobArrayTaskLimit", "array-throttle"),
        ("DependencyNeverSatisfied", "has failed"),
        ("NodeDown", "down"),
        ("launch failed requeued held", "could not launch"),
        ("launch_failed_requeued_held", "could not launch"),
        ("(Nodes required for job are DOWN, DRAINED or reserved for jobs)", "down, drained"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-2]", "n[1-2]"),
        ("ReqNodeNotAvail,_UnavailableNodes:n3", "n3"),
        ("QOSMaxGRESPerUser", "its QOS is at its limit of GPUs per user"),
        ("QOSMaxCpuPerUserLimit", "its QOS is at its limit of CPUs per user"),
        ("QOSMaxJobsPerUserLimit", "running jobs"),
        ("QOSMaxWallDurationPerJobLimit", "asks for more time than its QOS allows"),
        ("MaxGRESPerAccount", "its QOS is at its limit of GPUs per account"),
        ("AssocGrpGRES", "its account is at its limit of GPUs"),
        ("AssocGrpCPURunMinutesLimit", "CPUs times minutes"),
        ("QOSMinGRES", "less than its QOS wants"),
        ("", "has not looked"),
    ],
)
def test_a_reason_is_told_in_plain_words(reason: str, words: str) -> None:
    assert words in explain(reason).words


def test_a_reason_that_nobody_knows_is_told_as_slurm_says_it() -> None:
    assert explain("FrobnicatorOffline").words == "SLURM says FrobnicatorOffline"
    assert explain("FrobnicatorOffline").is_hopeless is False


@pytest.mark.parametrize("reason", ["PartitionTimeLimit", "BadConstraints", "InvalidAccount"])
def test_what_never_comes_by_itself_is_hopeless_and_has_a_way_out(reason: str) -> None:
    assert explain(reason).is_hopeless
    assert explain(reason).way_out


@pytest.mark.parametrize("reason", ["Priority", "Resources", "QOSMaxGRESPerUser", "BeginTime"])
def test_what_comes_by_itself_is_not(reason: str) -> None:
    assert not explain(reason).is_hopeless


def test_held_jobs_are_told_apart() -> None:
    for reason in ("JobHeldUser", "JobHeldAdmin", "launch failed requeued held"):
        assert explain(reason).is_held


def test_an_end_is_told_with_its_code() -> None:
    assert how_it_ended("FAILED", "NonZeroExitCode", 3).words == (
        "its script failed with exit code 3"
    )
    assert "output folder" in how_it_ended("FAILED", "JobLaunchFailure", 0, 53).words
    assert "--memory" in how_it_ended("OUT_OF_MEMORY").way_out
    assert how_it_ended("WHATEVER", "Else").words == "SLURM says WHATEVER Else"


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("invalid partition specified: gpux", "--partition"),
        ("Invalid account or account/partition combination specified", "--account"),
        ("Invalid qos specification", "qos"),
        ("Requested node configuration is not available", "--gpus"),
        ("Invalid generic resource (gres) specification", "--gpus"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "--time"),
        ("Job violates accounting/QOS policy (job submit limit, user's size)", "fewer --jobs"),
        ("Invalid feature specification", "--constraint"),
        ("Invalid node name specified", "--exclude"),
        ("Requested reservation is invalid", "scontrol show reservation"),
    ],
)
def test_a_refusal_names_the_option_to_change(words: str, option: str) -> None:
    assert option in refusal_in_plain_words(words)


def test_a_refusal_that_nobody_knows_has_only_its_own_words() -> None:
    assert refusal_in_plain_words("The moon is in the wrong house") == ""
