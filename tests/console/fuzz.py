"""Fuzz the console parser with atheris: no exception, no super-linear time, nothing unsafe to show.

    make fuzz-parser [FUZZ_SECONDS=600]

Begins with the golden logs and with a dictionary made of the words in them, since no fuzzer guesses "KASAN". What
it finds is written as ``crash-…`` or ``timeout-…`` below build/fuzz and belongs, cut down, into
tests/unit/test_console.py.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import atheris

with atheris.instrument_imports():
    from harness.console.detect import scan
    from harness.console.display import escape

from tests.console.expect import logs

_PIECE = 8192  # a corpus of small pieces is mutated a hundred times faster than one of whole logs
_MOST_SECONDS = 1.0
_REPEATED = 64  # times one input is repeated to see whether time grows faster than size
_WORD = re.compile(rb"[A-Za-z][A-Za-z_:-]{3,30}")


def one(data: bytes) -> None:
    """What must hold for any bytes."""
    begin = time.process_time()
    findings = scan(data)
    once = time.process_time() - begin
    before = 0
    for finding in findings:
        assert 0 <= finding.start <= finding.end <= len(data), "offsets outside the log"
        assert before <= finding.end, "findings out of order"
        before = finding.start
        shown = [finding.title, *finding.alt_titles, finding.text, finding.frame or "", finding.file or ""]
        shown += [finding.taint or "", finding.code or "", *(frame.function for frame in finding.frames)]
        shown += [*finding.registers, *finding.registers.values(), finding.task.comm if finding.task else ""]
        assert all(escape(text) == text for text in shown), "not safe to show"
        assert "\n" not in finding.title
    if once > _MOST_SECONDS / _REPEATED:
        begin = time.process_time()
        scan(data * _REPEATED)
        many = time.process_time() - begin
        # Twice for noise, and what a report costs that only now is whole.
        assert many < 2 * _REPEATED * once + _MOST_SECONDS, (
            f"{once:.3f} s once, {many:.1f} s {_REPEATED} times"
        )


def prepare(folder: Path) -> list[str]:
    """Corpus and dictionary in ``folder``; the fuzzer's arguments."""
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    words: set[bytes] = set()
    for log in logs():
        content = log.read_bytes()
        words.update(_WORD.findall(content[:_PIECE]))
        for number, at in enumerate(range(0, min(len(content), 4 * _PIECE), _PIECE)):
            (corpus / f"{log.stem}-{number}").write_bytes(content[at : at + _PIECE])
    entries = b"".join(b'"%s"\n' % word for word in sorted(words))
    (folder / "words.dict").write_bytes(entries)
    found = f"{folder}/"
    return [str(corpus), f"-dict={folder / 'words.dict'}", f"-artifact_prefix={found}", "-max_len=32768"]


def main() -> None:
    """``fuzz.py FOLDER SECONDS``."""
    folder, seconds = Path(sys.argv[1]), int(sys.argv[2])
    limits = ["-timeout=20", f"-max_total_time={seconds}", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *prepare(folder), *limits], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
