"""The command: what it prints, its exit status, and errors of one line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import norbert_store
from norbert_store import export_musdb, verify
from norbert_store._command import cli
from norbert_store._command.demo_music import TITLES, write_musdb
from tests.files import contents, files_below
from tests.servers import http_server

RATE = 16000
NAMES = [name for split in ("train", "test") for where, name in sorted(TITLES[:3]) if where == split]
HOSTILE = "[red]a[/red] :star: <b> $x$ \\[bold] - [/]"
TARGET = "[red]a[red] :star: <b> $x$ [bold] - []"

COMMANDS = {
    "": ["demo", "export", "info", "plot", "to-audio", "repair", "verify", "--version"],
    "demo": ["[OUT]", "--tracks", "--seconds"],
    "export": ["folder", "musdb"],
    "export musdb": [
        "ROOT OUT",
        "--quality",
        "--effort",
        "--bandwidth",
        "--n-fft",
        "--n-mels",
        "--skip-broken",
        "--update",
    ],
    "export folder": ["ROOT OUT", "--title", "--license", "--citation", "--skip-broken"],
    "info": ["STORE [TRACK]"],
    "verify": ["STORE", "status is 1", "--no-decode", "--workers"],
    "digest": ["STORE", "--strong", "SHA-256"],
    "repair": ["STORE", "status is 1", "--audio-root", "--drop"],
    "plot": ["STORE TRACK", "-o, --out"],
    "to-audio": ["STORE TRACK", "--target", "--mixture", "-o, --out"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data set in the folder "musdb", and the store "x.zarr" of it next to it."""
    folder = tmp_path_factory.mktemp("made")
    write_musdb(folder / "musdb", tracks=3, seconds=0.5, rate=RATE)
    export_musdb(folder / "musdb", folder / "x.zarr", title="Synthetic")
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A copy of all that, as the current folder."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path / "here"


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command in this process; gives exit status, standard output and standard error."""

    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["norbert-store", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0), *capsys.readouterr()

    return run_command


@pytest.fixture
def fails(run):
    """Run a command that must fail, and give the one line that it prints."""

    def run_failing(*arguments):
        status, out, err = run(*arguments)
        assert status == 1
        assert out == ""
        assert err.startswith("norbert-store: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        return err

    return run_failing


def script():
    path = shutil.which("norbert-store", path=sysconfig.get_path("scripts"))
    assert path is not None
    return path


def whole(store):
    """What `verify` prints of a store that is whole."""
    return f"{store} is whole\ndigest {norbert_store.open(store).digest()}\n"


def damage(path):
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


# ---- help, version and usage


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help(command, option):
    result = CliRunner().invoke(cli.cli, [*command.split(), option], prog_name="norbert-store")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"Usage: norbert-store {command}".rstrip() + " ")
    assert all(text in result.stdout for text in COMMANDS[command])
    assert all(len(line) <= 80 for line in result.stdout.splitlines())


def test_version(run):
    for option in ("--version", "-V"):
        assert run(option) == (0, f"norbert_store {norbert_store.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["info"], "Missing argument 'STORE'"),
        (["export"], "norbert-store export [OPTIONS] COMMAND [ARGS]..."),
        (["export", "musdb", "root"], "Missing argument 'OUT'"),
        (["export", "musdb", "root", "out", "--quality", "good"], "'good' is not a valid float"),
        (["export", "musdb", "root", "out", "--speed", "1"], "No such option"),
        (["plot", "x.zarr", "0"], "Missing option '-o'"),
        (["to-audio", "x.zarr", "0", "-o", "x.wav"], "Missing option '--target'"),
        (["demo", "--tracks", "1.5"], "'1.5' is not a valid integer"),
        (["demo", "--tracks", "0"], "0 is not in the range 1<=x<=12"),
        (["demo", "--seconds", "-1"], "-1.0 is not in the range x>0"),
        ([], "norbert-store [OPTIONS] COMMAND [ARGS]..."),
    ],
)
def test_wrong_usage_has_status_2(run, arguments, message):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert message in err


# ---- export


@pytest.mark.slow
def test_export_of_musdb_and_what_it_prints(run, here):
    status, out, err = run("export", "musdb", "musdb", "new.zarr", "--title", "A [b]title[/b]", "--quality", "70")
    assert (status, err) == (0, "")
    first, head, npy, audio, store = out.splitlines()
    assert first.startswith("3 tracks, 1.5 seconds, written to new.zarr in ")
    assert first.endswith(" x real time")
    assert head.split("  ")[-1].strip() == "of the audio"
    assert [line.split("  ")[0] for line in (npy, audio, store)] == ["float32 .npy", "the audio files", "this store"]
    assert audio.rstrip().endswith("100.0 %")
    db = norbert_store.open("new.zarr")
    assert db.names == NAMES
    assert db.attributes["title"] == "A [b]title[/b]"
    assert db.attributes["encoder"]["quality"] == 70
    assert verify("new.zarr")


def test_export_of_a_folder_with_options(run, here):
    options = ["--n-fft", 512, "--hop", 128, "--n-mels", 20, "--bandwidth", 4000]
    status, out, err = run("export", "folder", "musdb", "new.zarr", *options)
    assert (status, err) == (0, "")
    assert out.startswith("15 tracks, ")
    db = norbert_store.open("new.zarr")
    assert db.targets == ("mixture",)
    assert db.names[0] == f"test/{NAMES[2]}/bass"
    assert (db.rate, db.transform.name, db.transform.hop, len(db.frequencies)) == (RATE, "mel", 128, 20)
    assert db.frequencies[-1] < 4000


def test_broken_tracks_are_skipped_and_named(run, fails, here):
    path = here / "musdb" / "train" / NAMES[0] / "bass.wav"
    path.write_bytes(path.read_bytes()[:3000])
    name = HOSTILE.replace("/", "")
    (here / "musdb" / "train" / name).mkdir()
    (here / "musdb" / "train" / name / "vocals.wav").touch()
    assert f"track '{NAMES[0]}': " in fails("export", "musdb", "musdb", "error.zarr")
    status, out, err = run("export", "musdb", "musdb", "new.zarr", "--skip-broken")
    assert (status, err) == (0, "")
    assert out.startswith("2 tracks, ")
    head, first, second = out.splitlines()[-3:]
    assert head == "2 tracks left out:"
    assert first.startswith(f"  track '{NAMES[0]}': ")
    assert "bass.wav is cut off" in first
    assert name in second
    assert "vocals.wav is empty" in second


def test_what_has_changed_since_is_told_and_taken_anew(run, here):
    command = ["export", "musdb", "musdb", "new.zarr", "--effort", "0"]
    assert run(*command, "--title", "First")[0] == 0
    first, second = here / "musdb/train" / NAMES[0], here / "musdb/train" / NAMES[1]
    for path in first.glob("*.wav"):
        soundfile.write(path, np.full((4000, 2), 0.25), RATE)
    second.rename(second.with_name(f"{NAMES[1]} (again)"))
    status, out, err = run(*command, "--resume", "--title", "Second")
    assert (status, err) == (0, "")
    lines = out.splitlines()[5:]
    assert (
        lines[0] == "1 track changed in the data set since, and not in the store; --update brings the store up to date:"
    )
    assert lines[1].startswith(f"  {NAMES[0]}: the file of 'mixture' has 16044 bytes, and had ")
    assert lines[2] == "1 track in the store whose audio isn't there any more: deleted, or renamed:"
    assert lines[3] == (
        f"  {NAMES[1]}: its source musdb/train/{NAMES[1]} isn't there any more; '{NAMES[1]} (again)' has files of the "
        "same lengths and times"
    )
    assert lines[4:] == ["the title of the store is still 'First', not 'Second'"]
    status, out, err = run(*command, "--update", "--title", "Second")
    assert (status, err) == (0, "")
    lines = out.splitlines()[5:]
    assert lines[0] == "1 track updated"
    assert lines[1] == "1 track in the store whose audio isn't there any more: deleted, or renamed:"
    assert lines[3:] == ["the title of the store was 'First', and is 'Second' now"]
    db = norbert_store.open("new.zarr")
    assert db[NAMES[0]].samples == 4000
    assert db.names == [*NAMES[1:], f"{NAMES[1]} (again)", NAMES[0]]
    assert run("verify", "new.zarr") == (0, whole("new.zarr"), "")


@pytest.mark.parametrize("options", [[], ["--n-fft", "512"]])
def test_an_export_reads_each_header_once(run, here, monkeypatch, options):
    info, read = soundfile.info, []

    def counted(file, *arguments, **options):
        read.append(Path(file))
        return info(file, *arguments, **options)

    monkeypatch.setattr("soundfile.info", counted)
    assert run("export", "musdb", "musdb", "new.zarr", "--effort", "0", *options)[0] == 0
    assert sorted(read) == sorted(Path("musdb").rglob("*.wav"))


def test_an_export_of_which_nothing_came_into_the_store_fails(fails, here):
    for path in (here / "musdb").rglob("*.wav"):
        soundfile.write(path, np.full((4000, 2), np.nan), RATE, subtype="FLOAT")
    assert "none of the 3 tracks could be written to new.zarr; the first: " in fails(
        "export", "musdb", "musdb", "new.zarr", "--skip-broken", "--effort", "0"
    )


def test_export_errors(fails, here):
    assert "x.zarr exists already and isn't empty" in fails("export", "musdb", "musdb", "x.zarr")
    assert "there is no folder nowhere" in fails("export", "musdb", "nowhere", "new.zarr")
    assert "there is no folder nowhere" in fails("export", "folder", "nowhere", "new.zarr")
    assert "musdb/train holds no tracks of MUSDB18" in fails("export", "musdb", "musdb/train", "new.zarr")
    assert "x.zarr holds no audio files" in fails("export", "folder", "x.zarr", "new.zarr")
    assert "--quality must be" in fails("export", "musdb", "musdb", "new.zarr", "--quality", "101")
    assert "use a hop of at most" in fails("export", "musdb", "musdb", "new.zarr", "--hop", "4096")
    assert not (here / "new.zarr").exists()
    (here / "file").touch()
    fails("export", "musdb", "musdb", "file/new.zarr")
    bass = here / "musdb" / "train" / NAMES[0] / "bass.wav"
    bass.write_bytes(bass.read_bytes()[:3000])
    assert "--resume continues there, --skip-broken leaves" in fails("export", "musdb", "musdb", "cut.zarr")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_an_error(fails, here):
    here.chmod(0o500)
    try:
        assert "Permission denied" in fails("export", "musdb", "musdb", "new.zarr")
        assert "Permission denied" in fails("plot", "x.zarr", "0", "-o", "x.png")
    finally:
        here.chmod(0o700)


def test_errors_name_options_as_they_are_typed(fails, here):
    (here / "musdb").rename(here / "moved")
    assert fails("to-audio", "x.zarr", "0", "--target", "drums", "-o", "x.wav").endswith("; give --mixture\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("give mixture=", "give --mixture"),
        ("skip_broken leaves them out, resume=True goes on", "--skip-broken leaves them out, --resume goes on"),
        ("n_fft must be above 0, found n_fft=-1", "--n-fft must be above 0, found --n-fft -1"),
        ("use a hop of at most 5; resume it", "use a hop of at most 5; resume it"),
        ("there isn't a track 'mixture=' or \"hop=1, it's\"; it won't hop=2", None),
        ("the_n_fft=3, --n-fft and my-hop=2", "the_n_fft=3, --n-fft and my-hop=2"),
    ],
)
def test_arguments_in_texts_of_errors_become_options(text, expected):
    named = ("mixture", "n-fft", "hop", "skip-broken", "resume")
    options = [click.Option([f"--{name}"], is_flag=name in ("skip-broken", "resume")) for name in named]
    assert cli.with_options(text, options) == (expected or text.replace("won't hop=2", "won't --hop 2"))
    assert cli.with_options(text, []) == text


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX")
def test_places_are_those_that_a_shell_has_not_expanded(run, here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    (here / "musdb").rename(here / "my music")
    url = f"file://{here}/my%20music"
    assert run("export", "folder", "~/my music", "~/1.zarr", "--effort", "0")[0] == 0
    assert run("export", "musdb", url, f"file://{here}/2%20x.zarr", "--effort", "0")[0] == 0
    for command in (["info"], ["digest"], ["verify"], ["repair", "--audio-root", url]):
        assert run(command[0], "~/2 x.zarr", *command[1:])[0] == 0
    mixture = f"{url}/train/{NAMES[0]}/mixture.wav"
    assert run("plot", "~/2 x.zarr", "0", "-o", "~/x.png")[0] == 0
    assert run("to-audio", "~/2 x.zarr", "0", "--target", "drums", "--mixture", mixture, "-o", "~/x.wav")[0] == 0
    assert run("separate", "~/2 x.zarr", "0", "-o", f"file://{here}/sep%20x")[0] == 0
    assert {"1.zarr", "2 x.zarr", "x.png", "x.wav", "sep x"} < {path.name for path in here.iterdir()}
    assert not (here / "~").exists()
    status, out, err = run("export", "folder", "https://example.org/music", "x.zarr")
    assert (status, out) == (2, "")
    assert "audio at https://example.org/music can't be read from here; fetch it first" in err


@pytest.mark.slow
@pytest.mark.filterwarnings("default:.*sends whole files")
def test_a_warning_is_one_line(run, here):
    with http_server(here, ranges=False) as url:
        status, out, err = run("digest", f"{url}/x.zarr", "--strong")
    assert (status, out) == (0, f"{norbert_store.open('x.zarr').digest(strong=True)}\n")
    assert err.startswith(f"norbert-store: {url}/x.zarr: this web server sends whole files")
    assert err.count("\n") == 1


# ---- info


def test_info_of_a_store(run, here):
    status, out, err = run("info", "x.zarr")
    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert ["tracks", "3"] in lines
    assert ["title", "Synthetic"] in lines
    assert "transform   stft, 16000 Hz, hop 1024, 1025 bins from 0 to 8000 Hz" in out.splitlines()
    assert out.splitlines()[-1].split("  ")[:2] == ["2", NAMES[2]]
    assert out.splitlines()[-1].split()[-2:] == ["test", "0.5"]


@pytest.mark.parametrize("track", [NAMES[1], "1"])
def test_info_of_a_track_by_name_and_by_position(run, here, track):
    status, out, err = run("info", "x.zarr", track)
    assert (status, err) == (0, "")
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    artist, title = NAMES[1].split(" - ")
    assert facts == {
        "name": NAMES[1],
        "split": "train",
        "length": "0.50 s, 8000 samples at 16000 Hz, 9 frames",
        "targets": "mixture, drums, bass, other, vocals",
        "source": f"musdb/train/{NAMES[1]}",
        "artist": artist,
        "title": title,
    }


def test_a_position_can_count_from_the_end_and_a_name_goes_before_it(run, here):
    assert run("info", "x.zarr", "--", "-1")[1].startswith(f"name     {NAMES[2]}\n")
    (here / "music").mkdir()
    for name in ("a", "0"):
        shutil.copy(here / "musdb" / "test" / NAMES[2] / "bass.wav", here / "music" / f"{name}.wav")
    shutil.copy(here / "music" / "a.wav", here / "music" / "00.wav")
    run("export", "folder", "music", "music.zarr")
    assert norbert_store.open("music.zarr").names == ["0", "00", "a"]
    assert run("info", "music.zarr", "00")[1].startswith("name     00\n")
    assert run("info", "music.zarr", "2")[1].startswith("name     a\n")


def test_info_errors(fails, here):
    assert "there is no store at nowhere.zarr" in fails("info", "nowhere.zarr")
    assert "there is no store at musdb" in fails("info", "musdb")
    assert f"did you mean '{NAMES[0]}'?" in fails("info", "x.zarr", NAMES[0].replace("a", "e"))
    assert "x.zarr has 3 tracks; there is none at position 3" in fails("info", "x.zarr", "3")
    for name in ("²", "--5", "1.0", "", "two  spaces"):
        assert f"has no track {name!r}" in fails("info", "x.zarr", "--", name)
    (here / "x.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    assert "x.zarr is no norbert_store" in fails("info", "x.zarr")


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A store in which everything that has a name is named to be taken for markup."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, 1))
    with norbert_store.create(
        "[x].zarr", targets=[TARGET, "vocals"], rate=8000, channels=1, title=HOSTILE, license=HOSTILE
    ) as writer:
        row: dict[str, Any] = {
            "split": HOSTILE,
            "source": HOSTILE,
            "metadata": {HOSTILE: HOSTILE},
            "labels": {"genre": HOSTILE},
        }
        writer.add("Don't " + HOSTILE, {"vocals": audio}, **row)
        for i in range(30):
            writer.add(f"{i} {HOSTILE}", {TARGET: audio})
    return "[x].zarr"


def test_markup_in_names_is_printed_as_it_is(run, hostile):
    status, out, err = run("info", hostile)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "store       [x].zarr"
    assert f"title       {HOSTILE}" in lines
    table = lines[lines.index("") + 1 :]
    assert len(table) == 22
    assert table[1].split(maxsplit=1)[1].startswith(f"Don't {HOSTILE} ")
    assert (table[1].count(HOSTILE), table[1].count(TARGET)) == (2, 1)  # name, split and the absent target
    assert table[-1] == "... 11 more"
    status, out, err = run("info", hostile, f"Don't {HOSTILE}")
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert facts["name"] == f"Don't {HOSTILE}"
    assert {facts[key] for key in ("split", "source", "genre")} == {HOSTILE}
    assert facts["absent"] == TARGET
    assert facts["metadata"] == repr({HOSTILE: HOSTILE})


@pytest.mark.slow
def test_markup_in_names_is_kept_by_the_other_commands(run, fails, hostile):
    assert run("verify", hostile) == (0, whole(hostile), "")
    assert run("plot", hostile, "1", "-o", "[b]:star:.png") == (0, "wrote [b]:star:.png\n", "")
    assert f"has no track {HOSTILE!r}" in fails("plot", hostile, HOSTILE, "-o", "x.png")
    assert f"it has {TARGET!r}, 'vocals'" in fails("to-audio", hostile, "0", "--target", "[b]", "-o", "x.wav")


def test_a_narrow_terminal_folds_names_but_cuts_nothing_off(run, here, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    out = run("info", "x.zarr")[1]
    table = out[out.index("\n\n") :]
    assert all(len(line) <= 40 for line in table.splitlines())
    for word in " ".join(NAMES).split():
        assert word in table


# ---- verify


def test_verify_of_a_whole_store(run, here):
    assert run("verify", "x.zarr") == (0, whole("x.zarr"), "")


def test_verify_prints_a_line_for_each_fault(run, here):
    damage(here / "x.zarr" / "magnitude" / "c" / "4" / "0" / "0" / "0")
    (here / "x.zarr" / "magnitude" / "c" / "1" / "0" / "2" / "0").unlink()
    status, out, err = run("verify", "x.zarr")
    assert (status, err) == (1, "")
    *faults, last = out.splitlines()
    for fault, channel in zip(faults[:2], ("left", "right"), strict=True):  # the vocals are the same in both
        place = f"x.zarr: track {NAMES[0]!r}, target 'vocals', channel {channel!r}, packed chunk 0, at byte 0 of "
        assert fault.startswith(f"{place}magnitude/c/4/0/0/0: the checksum of ")
    lost = f"x.zarr: track {NAMES[2]!r}, target 'drums', channel {{!r}}, packed chunk 128, magnitude/c/1/0/2/0"
    assert faults[2:] == [f"{lost.format(channel)}: the file is missing" for channel in ("left", "right")]
    assert last == "x.zarr: 4 faults"
    assert run("verify", "x.zarr", "--no-decode", "--workers", 1) == (status, out, err)


def test_verify_where_there_is_no_store(fails, here):
    assert "there is no store at nowhere" in fails("verify", "nowhere")


# ---- repair


def test_repair_says_what_it_mended(run, here):
    damage(here / "x.zarr" / "magnitude" / "c" / "4" / "0" / "0" / "0")
    (here / "x.zarr" / "target" / "c" / "0").unlink()
    assert run("repair", "x.zarr") == (0, "mended target/c/0\nmended magnitude/c/4/0/0/0\nx.zarr is whole\n", "")
    assert run("repair", "x.zarr") == (0, "x.zarr is whole\n", "")
    assert run("verify", "x.zarr") == (0, whole("x.zarr"), "")


def test_repair_says_what_it_cannot_mend_and_drops_it_if_told_so(run, here):
    damage(here / "x.zarr" / "magnitude" / "c" / "4" / "0" / "0" / "0")
    (here / "musdb").rename(here / "moved")
    status, out, err = run("repair", "x.zarr")
    failed, count, last = out.splitlines()
    assert (status, err) == (1, "")
    assert failed.startswith(f"can't mend track {NAMES[0]!r}: there is no file {here / 'musdb'}")
    assert count == "x.zarr: 2 faults left"
    assert last == "give --audio-root if the audio was moved; --drop removes tracks that can't be mended"
    shutil.copytree("x.zarr", "y.zarr")
    assert run("repair", "x.zarr", "--audio-root", "moved")[0] == 0
    status, out, err = run("repair", "y.zarr", "--drop")
    dropped, last = out.splitlines()
    assert (status, err, last) == (0, "", "y.zarr is whole")
    assert dropped.startswith(f"dropped track {NAMES[0]!r}: there is no file {here / 'musdb'}")
    assert norbert_store.open("y.zarr").names == NAMES[1:]


def test_repair_where_there_is_no_store(fails, here):
    assert "there is no store at nowhere" in fails("repair", "nowhere")


# ---- plot and to-audio


@pytest.mark.slow
def test_plot(run, fails, here):
    assert run("plot", "x.zarr", NAMES[0], "-o", "x.png") == (0, "wrote x.png\n", "")
    assert (here / "x.png").read_bytes().startswith(b"\x89PNG")
    assert "x.xyz can't be drawn; expected a file named .avif" in fails("plot", "x.zarr", "0", "-o", "x.xyz")
    assert "there is no folder nowhere to write x.png into" in fails("plot", "x.zarr", "0", "-o", "nowhere/x.png")
    assert "there is none at position 9" in fails("plot", "x.zarr", "9", "-o", "y.png")


def test_to_audio_with_the_phase_of_the_source(run, here):
    status, out, err = run("to-audio", "x.zarr", NAMES[0], "--target", "drums", "-o", "drums.wav")
    assert (status, out, err) == (0, "wrote drums.wav, 0.5 s of drums\n", "")
    found, rate = soundfile.read("drums.wav", dtype="float32")
    assert rate == RATE
    assert np.array_equal(found, norbert_store.open("x.zarr")[0].to_audio("drums"))


def test_to_audio_with_a_given_mixture(run, fails, here):
    shutil.move(here / "musdb", here / "elsewhere")
    arguments = ("to-audio", "x.zarr", "0", "--target", "drums", "-o", "drums.wav")
    assert f"the source of track '{NAMES[0]}' can't be read: there is no file" in fails(*arguments)
    mixture = f"elsewhere/train/{NAMES[0]}/mixture.wav"
    assert run(*arguments, "--mixture", mixture) == (0, "wrote drums.wav, 0.5 s of drums\n", "")
    original = soundfile.read(f"elsewhere/train/{NAMES[0]}/drums.wav")[0]
    assert np.corrcoef(soundfile.read("drums.wav")[0].ravel(), original.ravel())[0, 1] > 0.8


def test_to_audio_errors(fails, here):
    arguments = ("to-audio", "x.zarr", "0", "--target", "vocals")
    soundfile.write("short.wav", np.zeros((100, 2)), RATE)
    soundfile.write("rate.wav", np.zeros((8000, 2)), 8000)
    assert "has no target 'piano'; it has" in fails("to-audio", "x.zarr", "0", "--target", "piano", "-o", "x.wav")
    assert "the mixture is 100 samples x 2 channels" in fails(*arguments, "--mixture", "short.wav", "-o", "x.wav")
    assert "has 8000 samples per second" in fails(*arguments, "--mixture", "rate.wav", "-o", "x.wav")
    assert "there is no file no.wav" in fails(*arguments, "--mixture", "no.wav", "-o", "x.wav")
    assert "x.xyz can't be written" in fails(*arguments, "-o", "x.xyz")
    assert "there is no folder nowhere to write x.wav into" in fails(*arguments, "-o", "nowhere/x.wav")
    damage(here / "x.zarr" / "magnitude" / "c" / "4" / "0" / "0" / "0")
    message = fails(*arguments, "-o", "x.wav")
    assert f"x.zarr: track '{NAMES[0]}', target 'vocals', channel 'left', packed chunk 0" in message
    assert "checksum" in message
    assert not (here / "x.wav").exists()


def test_separate_writes_a_file_for_each_target(run, here):
    status, out, err = run("separate", "x.zarr", NAMES[0], "-o", "parts", "--method", "irm")
    assert (status, out, err) == (0, "wrote drums.wav, bass.wav, other.wav, vocals.wav to parts\n", "")
    expected = norbert_store.open("x.zarr")[0].separate(method="irm")
    for target, audio in expected.items():
        found, rate = soundfile.read(f"parts/{target}.wav", dtype="float32")
        assert rate == RATE
        assert np.array_equal(found, audio)


def test_separate_errors_leave_no_files(fails, here):
    assert "method must be one of 'wiener'" in fails("separate", "x.zarr", "0", "--method", "magic", "-o", "parts")
    assert "x.xyz" in fails("separate", "x.zarr", "0", "--format", "x.xyz", "-o", "parts")
    damage(here / "x.zarr" / "magnitude" / "c" / "4" / "0" / "0" / "0")
    assert "target 'vocals'" in fails("separate", "x.zarr", "0", "-o", "parts")
    assert not list((here / "parts").iterdir())


# ---- the installed command


@pytest.mark.slow
def test_the_installed_command(here):
    def call(*arguments):
        done = subprocess.run([script(), *arguments], capture_output=True, text=True, encoding="utf-8")
        return done.returncode, done.stdout, done.stderr

    assert call("--version") == (0, f"norbert_store {norbert_store.__version__}\n", "")
    assert call("verify", "x.zarr") == (0, whole("x.zarr"), "")
    status, out, err = call("export", "folder", "musdb", "new.zarr")
    assert (status, err) == (0, "")
    assert out.startswith("15 tracks, ")
    assert call("info", "nowhere") == (
        1,
        "",
        "norbert-store: there is no store at nowhere: expected a zarr.json there\n",
    )
    assert call("info")[0] == 2


@pytest.mark.slow
def test_a_reader_that_leaves_early_gets_no_traceback(here):
    with subprocess.Popen(
        [script(), "info", "x.zarr"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


# The command gets Ctrl-C's usual effect back: a shell that starts these tests in the background takes it from all that
# they start.
INTERRUPTIBLE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


@contextmanager
def started(*arguments):
    """Start the command, in a group of processes of its own, which doesn't outlive a test that gives up."""
    command = [sys.executable, "-c", INTERRUPTIBLE, script(), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise


def group_is_gone(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_an_export_without_a_traceback_and_leaves_a_whole_store(tmp_path):
    """Far more tracks than are done by then, all of them links to one file."""
    soundfile.write(tmp_path / "x.wav", np.random.default_rng(0).uniform(-0.5, 0.5, (8000, 2)), 8000)
    (tmp_path / "music").mkdir()
    for i in range(4000):
        (tmp_path / "music" / f"{i:04d}.wav").symlink_to(tmp_path / "x.wav")
    store = tmp_path / "x.zarr"
    with started("export", "folder", str(tmp_path / "music"), str(store), "--effort", "0") as process:
        wait_for(lambda: (store / "magnitude/c/0/0/5").exists() or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (
        130,
        "",
        f"norbert-store: stopped. {store} holds the finished tracks; the same command with --resume continues",
    )
    assert 5 <= len(norbert_store.open(store)) < 4000
    assert verify(store)


# ---- several workers, and exports that go on


@pytest.fixture
def music(tmp_path, monkeypatch):
    """A folder of 60 files, as the only thing in the current folder, and the store that becomes of it."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("x.wav", np.random.default_rng(0).uniform(-0.5, 0.5, (8000, 2)), 8000)
    (tmp_path / "music").mkdir()
    for i in range(60):
        (tmp_path / "music" / f"{i:02d}.wav").symlink_to(tmp_path / "x.wav")
    return tmp_path / "x.zarr"


EXPORT = ("export", "folder", "music", "x.zarr", "--n-fft", "512", "--effort", "0")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_all_workers_and_the_export_can_go_on(run, music):
    """The signal goes to all processes of the group, as from a terminal."""
    with started(*EXPORT, "--workers", "2") as process:
        wait_for(lambda: (music / "magnitude/c/0/0/10").exists() or process.poll() is not None)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
        wait_for(lambda: group_is_gone(process.pid))
    assert (process.returncode, out, err.strip()) == (
        130,
        "",
        "norbert-store: stopped. x.zarr holds the finished tracks; the same command with --resume continues",
    )
    committed = norbert_store.open(music).names
    assert committed == [f"{i:02d}" for i in range(len(committed))]
    assert len(committed) < 60  # perhaps none: bundles are committed in order, and the first may be the last to be done
    assert verify(music)
    assert not (music / "writer.lock").exists()
    status, out, err = run(*EXPORT, "--resume", "--workers", "1")
    assert (status, err) == (0, "")
    assert out.startswith("60 tracks, 1.0 minutes, written to x.zarr")
    assert ("there before) in " in out) == bool(committed)
    found = contents(music)
    shutil.rmtree(music)
    run(*EXPORT)
    assert contents(music) == found


@pytest.mark.slow
def test_resume_of_what_is_finished_and_of_nothing(run, here):
    command = ("export", "musdb", "musdb", "new.zarr", "--resume")
    assert run(*command)[0] == 0
    before = files_below(here / "new.zarr")
    status, out, err = run(*command)
    assert (status, err) == (0, "")
    assert out.startswith("3 tracks, 1.5 seconds, written to new.zarr (3 of them were there before) in ")
    assert files_below(here / "new.zarr") == before


@pytest.mark.slow
def test_resume_errors(fails, run, here):
    run("export", "musdb", "musdb", "new.zarr")
    assert "was begun with quality 80.0, found 70.0; give what it was begun with, or export to another place" in fails(
        "export", "musdb", "musdb", "new.zarr", "--resume", "--quality", "70"
    )
    (here / "folder" / "track").mkdir(parents=True)
    (here / "folder" / "track" / "01.wav").write_text("mine")
    assert "folder isn't empty, and holds no store: found track/01.wav" in fails(
        "export", "musdb", "musdb", "folder", "--resume"
    )
    assert (here / "folder" / "track" / "01.wav").read_text() == "mine"
    with norbert_store.append("new.zarr"):
        message = fails("export", "musdb", "musdb", "new.zarr", "--resume")
    assert "new.zarr is being written by " in message
    assert f", process {os.getpid()}, since " in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "Invalid value for '--workers'"),
        (["--workers", "two"], "Invalid value for '--workers'"),
        (["--workers", "2", "--dask", "tcp://127.0.0.1:1"], "give --workers or --dask, not both"),
    ],
)
def test_wrong_workers_have_status_2(run, here, arguments, message):
    status, out, err = run("export", "musdb", "musdb", "new.zarr", *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert not (here / "new.zarr").exists()


@pytest.mark.slow
def test_dask_does_the_work(run, here):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=":0"
    ) as cluster:
        status, out, err = run("export", "musdb", "musdb", "new.zarr", "--dask", cluster.scheduler_address)
    assert (status, err) == (0, "")
    assert out.startswith("3 tracks, 1.5 seconds, written to new.zarr in ")
    run("export", "musdb", "musdb", "one.zarr")
    assert contents(here / "new.zarr") == contents(here / "one.zarr")


@pytest.mark.parametrize("options", [(), ("--skip-broken",), ("--skip-broken", "--resume")])
def test_a_bug_is_shown_whole_and_is_no_broken_track(run, here, monkeypatch, options):
    def read(*_arguments: Any, **_options: Any) -> None:
        np.zeros(3) + np.zeros(4)

    monkeypatch.setattr("soundfile.SoundFile.read", read)
    with pytest.raises(ValueError, match="operands could not be broadcast"):
        run("export", "musdb", "musdb", "bug.zarr", "--effort", 0, *options)
    assert len(norbert_store.open("bug.zarr")) == 0


def test_an_address_that_is_none_is_an_error_of_one_line(fails, here):
    assert "--dask must be the address of a scheduler, found 'nonsense': missing port number" in fails(
        "export", "musdb", "musdb", "x.zarr", "--dask", "nonsense"
    )


def test_dask_that_is_not_there_is_an_error_of_one_line(fails, here, monkeypatch):
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed")
    with dask.config.set({"distributed.comm.timeouts.connect": "300ms"}):
        message = fails("export", "musdb", "musdb", "new.zarr", "--dask", "tcp://127.0.0.1:1")
    assert "tcp://127.0.0.1:1" in message
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "pip install 'norbert_store[dask]'" in fails("export", "musdb", "musdb", "new.zarr", "--dask", "x")
    assert not (here / "new.zarr").exists()


# As on a full disk: no file may become larger than so many bytes.
FULL = """
import resource, sys
from norbert_store._command.cli import main

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # between tracks of 1 s and 5 s
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no limits there")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_full_disk_is_an_error_of_one_line_and_the_export_can_go_on(run, here, workers):
    soundfile.write("long.wav", np.random.default_rng(0).uniform(-0.5, 0.5, (40000, 2)), 8000)
    (here / "music").mkdir()
    for name, seconds in (("a", 1), ("b", 1), ("c", 5), ("d", 1)):
        audio = soundfile.read("long.wav")[0][: seconds * 8000]
        soundfile.write(here / "music" / f"{name}.wav", audio, 8000)
    command = ("export", "folder", "music", "full.zarr", "--n-fft", "512", "--effort", "0")
    done = subprocess.run(
        [sys.executable, "-c", FULL, *command, "--workers", workers], capture_output=True, text=True, encoding="utf-8"
    )
    place = here / "full.zarr/magnitude/c/0/0/2/0"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"norbert-store: {place} can't be written: File too large\n"
    assert norbert_store.open("full.zarr").names == ["a", "b"]
    assert verify("full.zarr")
    assert run(*command, "--resume")[0] == 0
    found = contents(here / "full.zarr")
    shutil.rmtree("full.zarr")
    run(*command)
    assert contents(here / "full.zarr") == found
