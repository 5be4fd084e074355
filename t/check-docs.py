#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares the documentation with the code, both ways where both have lists:

settings, options of the daemon, commands of auroractl, SQL functions and views,
message types and statuses, SQLSTATEs, magic numbers; and that files, links and
anchors that the documents name exist.  Reads sources only.  Prints one line for
each difference and exits with 1 if there are any.
"""
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
problems = []


def read(*path):
    with open(os.path.join(TOP, *path), encoding='utf-8') as f:
        return f.read()


def files(top, *ends):
    for folder, _, names in os.walk(os.path.join(TOP, top)):
        for name in sorted(names):
            if name.endswith(ends):
                yield os.path.relpath(os.path.join(folder, name), TOP)


def problem(text):
    problems.append(text)


def same(what, in_code, in_docs, where):
    """Both are sets of names; neither may have one that the other lacks."""
    if not in_code or not in_docs:
        problem(f'{what}: none found, has the form of the sources changed?')
    for name in sorted(in_code - in_docs):
        problem(f'{what} {name} is not in {where}')
    for name in sorted(in_docs - in_code):
        problem(f'{what} {name} of {where} does not exist')


DOCS = {path: read(path) for path in ['README.md', *files('docs', '.md')]}
READMES = {path: read(path) for folder in ('extension', 'storage_cluster')
           for path in files(folder, *('README' + end for end in ('', '.read', '.write', '.maintenance')))}
SOURCES = {path: read(path) for folder in ('extension', 'storage_cluster', 'rdma')
           for path in files(folder, '.c', '.h')}
ALL = '\n'.join(DOCS.values())
CONFIGURATION = DOCS['docs/configuration.md']
OPERATION = DOCS['docs/operation.md']
PROTOCOL = DOCS['docs/protocol.md']
FORMATS = DOCS['docs/formats.md']
SQL = read('extension', 'aurora--1.0.sql')


def settings():
    code = set(re.findall(r'DefineCustom\w+Variable\("(aurora\.\w+)"',
                          read('extension', 'module', 'aurora_guc.c')))
    same('setting', code, set(re.findall(r'^\| `(aurora\.\w+)` \|', CONFIGURATION, re.M)),
         'docs/configuration.md')
    return code


def options():
    docs = set()
    default = {}
    for line, value in re.findall(r'^\| (`--.*?) \| (.*?) ?\|', CONFIGURATION, re.M):
        names = re.findall(r'`--([\w-]+)', line)
        docs |= set(names)
        default[names[0]] = value
    source = read('storage_cluster', 'daemon', 'au_config.c')
    for name, value in re.findall(r'\{"([\w-]+)",[^}]*?\(default (\w+)', source):
        if value.isdigit() and default.get(name) != value:
            problem(f'option --{name}: default {value} in its help, {default.get(name)} in docs/configuration.md')
        field = re.search(r'\{"%s", \w+, offsetof\(AuConfig, (\w+)\)' % name, source).group(1)
        if value.isdigit() and not re.search(r'\b%s = %s;' % (field, value), source) and value != '0':
            problem(f'option --{name}: {value} in its help is not its default')
    code = set(re.findall(r'^\t\{"([\w-]+)", \w+', source, re.M)) | {'config', 'version', 'help'}
    same('option', {'--' + c for c in code}, {'--' + d for d in docs}, 'docs/configuration.md')


def commands():
    """Each line of auroractl --help is one command; each command that the
    documents show begins as one of them does."""
    source = read('storage_cluster', 'ctl', 'auroractl.c')
    code = set()
    for line in re.findall(r'"  auroractl (?:TARGET )?([^"]*?)\\n"', source):
        words = re.match(r'[a-z]+( [a-z|]+)?', line).group(0).split()
        for second in words[1].split('|') if len(words) > 1 else ['']:
            code.add((words[0] + ' ' + second).strip())
    if len(code) < 10:
        problem('auroractl: no commands found in its help')
    for command in sorted(code):
        if command not in ALL and command.split()[0] not in ('node', 'group', 'kv', 'cluster'):
            problem(f'auroractl {command} is not in docs/')
        if command.split()[-1] not in ALL:
            problem(f'auroractl {command} is not in docs/')
    target = r'(?:--\w[\w-]* \S+ |… |TARGET )?'
    for path, text in DOCS.items():
        for first, second in re.findall(r'`(?:[^`]* )?auroractl ' + target + r'(\w+)(?: (\w+))?', text):
            if first in ('check', 'status') or (second and first + ' ' + second in code):
                continue
            if not second and any(c.startswith(first) for c in code):
                continue
            problem(f'{path}: auroractl has no command "{first} {second}"')


def sql_names(known_settings):
    functions = {f for f in re.findall(r'^CREATE FUNCTION aurora\.(\w+)', SQL, re.M)}
    views = {v for v in re.findall(r'^CREATE VIEW aurora\.(\w+)', SQL, re.M)}
    private = {'tableam_handler', 'storage_address', 'shipper_status', 'cache_stats',
               'fetch_latency_stats', 'check_preloaded'}
    for name in sorted(functions | views):
        if name in private or name.startswith('redirected_'):
            continue
        if not re.search(r'\b(aurora\.)?%s\b' % name, ALL):
            problem(f'aurora.{name} is not in docs/')
    for path, text in DOCS.items():
        for name in set(re.findall(r'`aurora\.(\w+)', text)):
            if name not in functions | views and 'aurora.' + name not in known_settings and \
                    name not in ('so', 'control', 'conf', 'md'):
                problem(f'{path}: there is no aurora.{name}')


def views():
    """aurora.VIEW.COLUMN, and `column` of aurora.VIEW, that documents name."""
    for path, text in DOCS.items():
        for view, column in set(re.findall(r'aurora\.(\w+)\.(\w+)', text)):
            if f'aurora.{view}' in SQL and not re.search(r'\b%s\b' % column, SQL):
                problem(f'{path}: aurora.{view} has no column {column}')
        for column, view in set(re.findall(r'`(\w+)` of `aurora\.(\w+)`', text)):
            if not re.search(r'\b%s\b' % column, SQL):
                problem(f'{path}: aurora.{view} has no column {column}')


def messages():
    code = {}
    for path in ('au_wire.h', 'au_wire_kv.h'):
        for name, number in re.findall(r'^#define AU_MSG_(\w+) (\d+)',
                                       read('storage_cluster', 'common', path), re.M):
            code[int(number)] = name
    docs = {}
    for numbers, names in re.findall(r'^\| ([\d, ]+) \| (`[A-Z].*?) ?\|', PROTOCOL, re.M):
        for number, name in zip(numbers.split(','), re.findall(r'`([A-Z_]+)`', names)):
            docs[int(number)] = name
    m = re.search(r'^\| ([\d, ]+) \| their answers', PROTOCOL, re.M)
    for number in m.group(1).split(',') if m else []:
        docs[int(number)] = docs[int(number) - 1] + '_OK'
    same('message', {f'{n} {m}' for n, m in code.items()}, {f'{n} {m}' for n, m in docs.items()},
         'docs/protocol.md')
    body = re.search(r'typedef enum AuStatus\n\{(.*?)\}', read('storage_cluster', 'common', 'au_base.h'),
                     re.S).group(1)
    text = re.search(r'^Statuses \(`AuStatus`\):(.*?)\n\n', PROTOCOL, re.M | re.S).group(1)
    same('status', {str(i) for i in range(len(re.findall(r'^\tAU_\w+', body, re.M)))},
         set(re.findall(r'(?:^|,)\s*(\d+) ', text)), 'docs/protocol.md')


def magics():
    """The bytes of each magic number, as docs/formats.md or docs/protocol.md has them."""
    for path, text in SOURCES.items():
        if '/tests/' in path or '/sim/' in path:
            continue
        for name, value in re.findall(r'^#define (\w*MAGIC\w*) ("\w+"|0x[0-9A-Fa-f]+)', text, re.M):
            if value.startswith('"'):
                value = value[1:-1]
            else:
                value = bytes.fromhex(value[2:].zfill(8))[::-1].decode('latin-1')
            if value not in FORMATS + PROTOCOL:
                problem(f'{path}: magic {name} "{value}" is neither in docs/formats.md nor docs/protocol.md')


SQLSTATES = {'DATA_CORRUPTED': 'XX001', 'OBJECT_NOT_IN_PREREQUISITE_STATE': '55000',
             'CONNECTION_FAILURE': '08006', 'IO_ERROR': '58030', 'QUERY_CANCELED': '57014',
             'SNAPSHOT_TOO_OLD': '72000', 'FEATURE_NOT_SUPPORTED': '0A000',
             'TRANSACTION_RESOLUTION_UNKNOWN': '08007'}


def sqlstates():
    """Those that tell of storage; others mean what they mean everywhere."""
    for path in files('extension', '.c'):
        for name in re.findall(r'ERRCODE_(\w+)', read(path)):
            code = SQLSTATES.get(name)
            if code and f'| {code} ' not in OPERATION:
                problem(f'{path}: SQLSTATE {code} ({name.lower()}) is not in docs/operation.md')


def metrics():
    """Names of metrics that documents and the dashboard have end as one in the code does."""
    code = ''.join(read(p) for p in files('storage_cluster/daemon', '.c'))
    names = set(re.findall(r'aurora_storaged_(\w+[a-z])\b(?!…)', ALL))
    for name in sorted(names):
        bare = re.sub(r'_(total|bytes|seconds|info)$', '', name)
        if not re.search(r'"%s"|"%s"|_%s\b' % (name, bare, name), code):
            problem(f'docs: metric aurora_storaged_{name} does not exist')


def slug(title):
    """The anchor that a heading gets."""
    title = re.sub(r'[`*]|\[([^\]]*)\]\([^)]*\)', r'\1', title.strip().lower())
    return re.sub(r'[^\w\- ]', '', title).replace(' ', '-')


def links():
    anchors = {}
    for path, text in DOCS.items():
        anchors[path] = {slug(t) for t in re.findall(r'^#+ (.*)$', text, re.M)}
        anchors[path] |= set(re.findall(r'<a id="([^"]+)"', text))
    for path, text in DOCS.items():
        for target in re.findall(r'\]\(([^)\s]+)\)', text):
            if re.match(r'[a-z]+:', target):
                continue
            name, _, anchor = target.partition('#')
            full = os.path.normpath(os.path.join(os.path.dirname(path), name)) if name else path
            if not os.path.exists(os.path.join(TOP, full)):
                problem(f'{path}: link to {target}, which does not exist')
            elif anchor and anchor not in anchors.get(full, ()):
                problem(f'{path}: link to {target}: no such heading')


def named_files():
    """Files of the source tree that the documents name: with a folder, or t/NNN."""
    roots = ('', 'storage_cluster', 'extension', 'docs')
    made = {'bench/results/latest.json', 'bench/results/soak.json'}
    for path, text in {**DOCS, **READMES}.items():
        for name in set(re.findall(r'(?<![\w./-])((?:[\w.-]+/)+[\w-]+\.(?:c|h|pl|py|sh|md|pm|json|conf))\b', text)):
            if name not in made and \
                    not any(os.path.exists(os.path.join(TOP, r, name)) for r in roots + (os.path.dirname(path),)):
                problem(f'{path}: {name} does not exist')
        for name, function in set(re.findall(r'`((?:[\w.-]+/)+[\w-]+\.[ch]):(\w+)\(\)`', text)):
            sources = [SOURCES[p] for p in (name, 'storage_cluster/' + name) if p in SOURCES]
            if not re.search(r'\b%s\(' % function, ''.join(sources)):
                problem(f'{path}: there is no {function}() in {name}')
        for number in set(re.findall(r'\bt/(\d{3})\b', text)):
            if not any(f.startswith(number) for f in os.listdir(os.path.join(TOP, 't'))):
                problem(f'{path}: there is no t/{number}')
        for name in set(re.findall(r'\b(test_\w+)\b(?!\.)', text)):
            if not os.path.exists(os.path.join(TOP, 'storage_cluster', 'tests', name + '.c')) and \
                    not any(re.search(r'\b%s\b' % name, t) for p, t in SOURCES.items() if '/tests/' in p):
                problem(f'{path}: there is no test {name}')


def identifiers():
    """Functions, types and constants that documents name, and files that comments name."""
    words = set()
    for text in SOURCES.values():
        words |= set(re.findall(r'\w+', text))
    for path, text in {**DOCS, **READMES}.items():
        for name in set(re.findall(r'\b(au_\w+\w|AU_\w+\w|Au[A-Z]\w+)\b(?!\.|\*|…)', text)):
            if name not in words and not any(os.path.basename(p).startswith(name + '.') for p in SOURCES):
                problem(f'{path}: there is no {name} in the sources')
    names = {os.path.basename(p) for p in files('.', '')}
    for path, text in {**SOURCES, **READMES}.items():
        for name in set(re.findall(r'\b((?:au|aurora|ctl|sim|test|fuzz|bench)_\w+\.[ch])\b', text)):
            if name not in names and name != 'test_X.c':
                problem(f'{path}: there is no {name}')


def targets():
    """make TARGET, as the documents name them."""
    made = set()
    for path in ('Makefile', 'storage_cluster/Makefile'):
        for line in re.findall(r'^([\w. -]+?)\s*:(?!=)', read(path), re.M):
            made |= set(line.split())
    for path, text in DOCS.items():
        for name in set(re.findall(r'\bmake (?:-C storage_cluster )?([a-z][\w-]+)(?=[`\s.,;:)])', text)):
            if '-' in name or f'`make {name}`' in text:
                if name not in made and name not in ('install', 'installcheck', 'clean'):
                    problem(f'{path}: there is no "make {name}"')


def main():
    sql_names(settings())
    options()
    commands()
    views()
    messages()
    magics()
    sqlstates()
    metrics()
    links()
    named_files()
    identifiers()
    targets()
    for text in problems:
        print(text)
    print(f'{len(DOCS)} documents, {len(problems)} differences from the code')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main())
