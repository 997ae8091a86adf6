"""What kernel reports look like, continued: pages, page tables, slabs, leaks, shortages, objects.

Sources: mm/page_alloc.c, mm/memory.c, mm/debug.c, mm/pgtable-generic.c, mm/slub.c, mm/page_poison.c, kernel/fork.c,
mm/kmemleak.c, mm/oom_kill.c, mm/vmalloc.c, lib/debugobjects.c, lib/kobject.c, fs/sysfs/dir.c; async_fork: Anolis' and
openEuler's trees.
"""

from __future__ import annotations

from harness.console.format import AT, COMM, Format, row

_WARNED = r"WARNING: (?:CPU: (?P<cpu>\d+) PID: (?P<pid>\d+) at )?(?P<file>[\w./-]*{})(?::(?P<line>\d+))"
_ALLOCATES = ("alloc",)
_FREES = ("alloc", "free")

ROWS: tuple[Format, ...] = (
    # -- pages and page tables --
    row("BUG", "BUG: ",
        r"BUG: (?P<what>Bad page (?:state|map|cache))(?: in process (?P<comm>.{1,16}?)  ?p(?:fn|te|md|ud))?",
        "BUG: {what}", alt=("BUG: {what} in {place}",), traced=True, skip=_FREES),
    row("BUG", "BUG: ", r"BUG: Bad rss-counter state", "BUG: Bad rss-counter state"),
    row("BUG", "BUG: ", r"BUG: (?P<what>non-zero (?:pgtables_bytes|nr_ptes|nr_pmds)) on freeing mm",
        "BUG: {what} on freeing mm"),
    row("BUG", ": bad p", rf"{AT}: bad (?P<what>p[gmu4]d|pte) (?:[0-9a-f]|\()", "bad {what}"),
    row("BUG", ("VM_BUG_ON", "VM_WARN_ON"), r"page dumped because: (?P<what>VM_(?:BUG|WARN)_ON\w{0,32})\(",
        "page dumped because: {what}", leads=True),
    row("BUG", "_fork: ", r"async_fork: mismatched vma", "async_fork: mismatched vma"),
    row("BUG", "_fork: ", r"async_fork: process (?P<pid>\d{1,10}) copy vma",
        "async_fork: process NUM copy vma failed"),
    row("BUG", "_fork: ", r"async_fork: (?P<what>.{0,100}(?:fail|mismatch|error|BUG).{0,100})",
        "async_fork: {what}"),
    row("BUG", (": memory corruption", ": single bit error"),
        r"pagealloc: (?P<what>memory corruption|single bit error)", "pagealloc: {what} in {place}", skip=_FREES),
    # -- slabs --
    row("BUG", "BUG ",
        r"BUG [\w:.-]{1,64} \((?:Not tainted|Tainted: [^)]{1,64})\): (?P<what>Objects remaining|[\w -]{1,64})",
        "BUG: {what} in {place}", alt=("BUG: {what}",), skip=_FREES),
    row("leak", "unreferenced object", r"(?:kmemleak: )?unreferenced object 0x[0-9a-f]{1,16} \(size",
        "memory leak in {place}", skip=_ALLOCATES),
    row("leak", "BUG: ", r"BUG: memory leak", "memory leak in {place}", skip=_ALLOCATES, leads=True),
    row("leak", "kmemleak: ", r"kmemleak: \d+ new suspected memory leak", "memory leak", follows=("leak",)),
    # -- shortages --
    row("memory", "-killer: ", rf"(?P<comm>{COMM}) invoked oom-killer: ", "out of memory", remote=True,
        skip=("oom", "alloc")),
    row("memory", ("Out of memory", "Memory cgroup out"),
        r"(?:Memory cgroup out|Out) of memory(?: \(oom_\w{1,40}\))?: Kill", "out of memory", follows=("memory",)),
    row("memory", ": page allocation failure", rf"(?P<comm>{COMM}): page allocation failure",
        "page allocation failure in {place}", skip=_ALLOCATES),
    row("memory", ": vmalloc", rf"(?P<comm>{COMM}): vmalloc(?: error)?: ", "vmalloc error in {place}",
        skip=_ALLOCATES),
    row("memory", "vmap allocation for ", r"vmap allocation for size \d+ failed",
        "vmap allocation failed in {place}", skip=_ALLOCATES),
    # -- WARN()s that speak of their caller's mistake --
    # Since 6.13 SLUB's report ends with one; the report above says more.
    row("WARNING", "WARNING: ",
        _WARNED.format(r"mm/slub\.c") + r" (?:at )?(?:__slab_err|object_err|slab_err|__kmem_cache_shutdown)\b",
        "WARNING in {place}", skip=_FREES, follows=("BUG",), ended=True),
    row("WARNING", "WARNING: ", _WARNED.format(r"lib/refcount\.c"), "WARNING: refcount bug in {place}",
        alt=("WARNING in {place}",), ended=True),
    row("WARNING", "WARNING: ", _WARNED.format(r"lib/list_debug\.c"), "BUG: corrupted list in {place}",
        alt=("WARNING in {place}",), ended=True),
    row("WARNING", "WARNING: ", _WARNED.format(r"lib/debugobjects\.c"), "WARNING: ODEBUG bug in {place}",
        alt=("WARNING in {place}",), skip=("objects", "alloc", "free"), ended=True),
    row("WARNING", "WARNING: ", _WARNED.format(r"mm/usercopy\.c"), "WARNING: bad usercopy in {place}",
        alt=("WARNING in {place}",), ended=True),
    row("WARNING", "WARNING: ", _WARNED.format(r"lib/kobject\.c"), "WARNING: kobject bug in {place}",
        alt=("WARNING in {place}",), skip=("kobject",), ended=True),
    row("WARNING", ": tried to init an", r"kobject(?::| ).{0,100}: tried to init an initialized object",
        "WARNING: kobject bug in {place}", skip=("kobject",)),
    row("WARNING", ": cannot create duplicate", r"(?:sysfs|proc): cannot create duplicate filename",
        "sysfs: cannot create duplicate filename in {place}", skip=("kobject",)),
    row("WARNING", "_add_internal failed", r"kobject(?::| ).{0,16}kobject_add_internal failed for",
        "WARNING: kobject bug in {place}", skip=("kobject",), follows=("WARNING",)),
    row("WARNING", "WARNING: ", _WARNED.format(r"mm/(?:page_alloc|util|slab_common|slub|vmalloc|slab)\.[ch]"),
        "WARNING in {place}", skip=_FREES, ended=True),
)  # fmt: skip
