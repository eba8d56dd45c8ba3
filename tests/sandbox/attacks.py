# ruff: noqa: E501
"""Hostile programs: forged verdicts, escapes, exhaustion.

Each tries to pass a test whose answer it can't know. In a source, `f` is the function under test; FOLDER, PORT and JUDGE are replaced by a folder of the test, a listening port and a process id.
"""

from __future__ import annotations

RETURN_ARGUMENT = "\ndef f(x):\n    return x\n"

# Forged verdicts and messages.
FORGED = {
    "exit 0": "import os\ndef f(x):\n    os._exit(0)",
    "exit at import": "import os\nos._exit(0)",
    "sys.exit": "import sys\ndef f(x):\n    sys.exit(0)",
    "sys.exit at import": "import sys\nsys.exit(0)",
    "atexit": "import atexit, os\natexit.register(os._exit, 0)" + RETURN_ARGUMENT,
    "print verdict": "def f(x):\n    print('{\"passed\": true}')\n    print('passed', flush=True)",
    "verdict to all descriptors": (
        "import json, os, struct\n"
        "def f(x):\n"
        "    for message in (['verdict', True, ''], ['value', True], ['loaded'], ['ready']):\n"
        "        data = json.dumps(message).encode()\n"
        "        for number in range(64):\n"
        "            try:\n                os.write(number, struct.pack('>I', len(data)) + data)\n"
        "            except OSError:\n                pass\n"
    ),
    "raw bytes to all descriptors": (
        "import os\nfor number in range(64):\n    try:\n        os.write(number, b'\\x00\\x00\\x00\\x04true' * 9)\n    except OSError:\n        pass"
        + RETURN_ARGUMENT
    ),
    "huge length prefix": "import os\nos.write(3, b'\\xff' * 16)" + RETURN_ARGUMENT,
    "half a message": "import os, time\nos.write(3, b'\\x00\\x00\\x10\\x00[')\ntime.sleep(60)",
    "object message": "import os\nos.write(3, b'\\x00\\x00\\x00\\x02{}')" + RETURN_ARGUMENT,
    "number message": "import os\nos.write(3, b'\\x00\\x00\\x00\\x01' + b'7')" + RETURN_ARGUMENT,
    "nested message": "import os, struct\nos.write(3, struct.pack('>I', 200000) + b'[' * 200000)" + RETURN_ARGUMENT,
    "nested complaint": "import os, struct\ndata = b'[\"not_data\", ' + b'[' * 600 + b']' * 600 + b']'\nos.write(3, struct.pack('>I', len(data)) + data)"
    + RETURN_ARGUMENT,
    "nested complaint later": "import os, struct\ndef f(x):\n    data = b'[\"not_data\", ' + b'[' * 600 + b']' * 600 + b']'\n    os.write(3, struct.pack('>I', len(data)) + data)\n    return x",
    "nested value": "import os, struct\ndef f(x):\n    data = b'[\"value\", ' + b'[\"list\",' * 600 + b'1' + b']' * 601\n    os.write(3, struct.pack('>I', len(data)) + data)",
    "early answers": (
        "import json, os, struct\nfor message in [['loaded']] + [['value', i] for i in range(100)]:\n"
        "    data = json.dumps(message).encode()\n    os.write(3, struct.pack('>I', len(data)) + data)" + RETURN_ARGUMENT
    ),
    "wire tags": "def f(x):\n    return ['set', 'dict', '__tuple__', {'__set__': [1]}]",
    "malformed wire": "import __main__\n__main__.encode = lambda value: ['int', 'zz']" + RETURN_ARGUMENT,
    "unknown wire": "import __main__\n__main__.encode = lambda value: ['object', 'True']" + RETURN_ARGUMENT,
    "odd dictionary wire": "import __main__\n__main__.encode = lambda value: ['dict', 1]" + RETURN_ARGUMENT,
    "own error type": "import __main__\n__main__.write_message(['error', 7, {}])" + RETURN_ARGUMENT,
}

# Frames, modules and objects of the process.
INTROSPECTION = {
    "frame walk": (
        "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n"
        "        for name, value in frame.f_locals.items():\n            if 'expected' in name or 'passed' in name or 'verdict' in name:\n"
        "                return value\n        frame = frame.f_back\n"
    ),
    "frame write": (
        "import sys\ndef f(x):\n    frame = sys._getframe(1)\n    frame.f_globals['encode'] = lambda value: True\n    frame.f_locals['value'] = True\n"
    ),
    "exception frames": (
        "def f(x):\n    try:\n        raise ValueError\n    except ValueError as error:\n        return str(error.__traceback__.tb_frame.f_back.f_locals)\n"
    ),
    "collector": (
        "import gc\ndef f(x):\n    texts = [v for o in gc.get_objects() if isinstance(o, dict) for v in o.values() if isinstance(v, str)]\n"
        "    return next((t for t in texts if t.startswith('key-')), None)\n"
    ),
    "memory scan": (
        "import ctypes, gc\ndef f(x):\n    for o in gc.get_objects():\n        if isinstance(o, list):\n            for item in o:\n"
        "                if isinstance(item, str) and item.startswith('key-'):\n                    return item\n"
    ),
    "monkeypatched json": 'import json\njson.dumps = lambda *a, **k: \'["verdict", true, ""]\'' + RETURN_ARGUMENT,
    "monkeypatched builtins": "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.type = lambda *a: bool\nbuiltins.all = lambda *a: True"
    + RETURN_ARGUMENT,
    "replaced modules": "import sys\nfor name in list(sys.modules):\n    sys.modules[name] = sys.modules['os']" + RETURN_ARGUMENT,
    "replaced main": "import __main__\n__main__.serve_calls = __main__.test = __main__.decode = lambda *a: True" + RETURN_ARGUMENT,
    "settrace": (
        "import sys\ndef trace(frame, event, arg):\n    frame.f_locals.update(passed=True)\n    return trace\nsys.settrace(trace)\nsys.setprofile(trace)"
        + RETURN_ARGUMENT
    ),
    "import hook": "import builtins\nbuiltins.__import__ = lambda *a, **k: None" + RETURN_ARGUMENT,
    "own codec": "import codecs, encodings\ncodecs.register_error('strict', lambda e: ('', e.end))" + RETURN_ARGUMENT,
    "entry point replaced": "def f(x):\n    global f\n    f = lambda x: x\n    return None",
    "entry point deleted": "def f(x):\n    del globals()['f']\n    return x",
    "no entry point": "g = 1",
    "entry point is a value": "f = 7",
}

# Values that claim to equal everything, or are none yet.
VALUES = {
    "eq always true": "class T:\n    def __eq__(self, other):\n        return True\n    __hash__ = None\ndef f(x):\n    return T()",
    "eq str": "class T(str):\n    __eq__ = lambda s, o: True\n    __ne__ = lambda s, o: False\n    __hash__ = str.__hash__\ndef f(x):\n    return T('a')",
    "eq int": "class T(int):\n    __eq__ = lambda s, o: True\n    __hash__ = int.__hash__\ndef f(x):\n    return T(1)",
    "eq list": "class T(list):\n    __eq__ = lambda s, o: True\ndef f(x):\n    return T()",
    "eq dict": "class T(dict):\n    __eq__ = lambda s, o: True\ndef f(x):\n    return T()",
    "eq inside": "class T(str):\n    __eq__ = lambda s, o: True\ndef f(x):\n    return [T('a')]",
    "mock": "from unittest.mock import ANY\ndef f(x):\n    return ANY",
    "pickle": "class T:\n    def __reduce__(self):\n        return (print, ('x',))\ndef f(x):\n    return T()",
    "generator": "def f(x):\n    yield x",
    "lazy map": "def f(x):\n    return map(str, [x])",
    "coroutine": "async def f(x):\n    return x",
    "function": "def f(x):\n    return f",
    "true": "def f(x):\n    return True",
    "NaN": "def f(x):\n    return float('nan')",
    "infinity": "def f(x):\n    return float('inf')",
    "none": "def f(x):\n    return None",
    "lone surrogates": "def f(x):\n    return '\\ud800' * 100000",
    "unicode bomb": "def f(x):\n    return 'a\\u0300\\u202e\\x00\\x1b]0;x\\x07' * 100000",
    "huge int": "def f(x):\n    return 1 << 4000000",
    "huge list": "def f(x):\n    return [0] * 10**7",
    "shared lists": "def f(x):\n    v = [0]\n    for _ in range(60):\n        v = [v, v]\n    return v",
    "cyclic list": "def f(x):\n    v = []\n    v.append(v)\n    return v",
    "deep list": "def f(x):\n    v = []\n    for _ in range(900):\n        v = [v]\n    return v",
    "colliding set": "def f(x):\n    return {(2**61 - 1) * i for i in range(3000)}",
    "unhashable keys": "import __main__\n__main__.encode = lambda v: ['dict', ['list'], 1]" + RETURN_ARGUMENT,
    "error as value": "def f(x):\n    raise AssertionError('passed')",
    "stop iteration": "def f(x):\n    raise StopIteration",
    "base exception": "def f(x):\n    raise BaseException('passed')",
    "exception with false text": "class E(Exception):\n    def __str__(self):\n        raise SystemExit(0)\ndef f(x):\n    raise E",
    "counts its calls": "import itertools\ncount = itertools.count()\ndef f(x):\n    return next(count)",
    "random": "import random\ndef f(x):\n    return random.random()",
}

# Out of the sandbox.
ESCAPES = {
    "reads home": "import os\nFILES = os.listdir(os.path.expanduser('~'))" + RETURN_ARGUMENT,
    "reads files": "def f(x):\n    return open('FOLDER/secret').read()",
    "reads the judge": "def f(x):\n    return open('/proc/JUDGE/environ').read() + open('/proc/JUDGE/cmdline').read()",
    "reads the judge's memory": "def f(x):\n    with open('/proc/JUDGE/mem', 'rb') as m:\n        return m.read(10)",
    "reads parent's descriptors": "import os\ndef f(x):\n    return os.listdir(f'/proc/{os.getppid()}/fd')",
    "reads its parent": "import os\ndef f(x):\n    return open(f'/proc/{os.getppid()}/cmdline').read()",
    "environment": "import os\ndef f(x):\n    return os.environ['SECRET_ANSWER']",
    "arguments": "import sys\ndef f(x):\n    return str(sys.argv) + str(sys.orig_argv)",
    "writes files": "open('FOLDER/written', 'w').write('x')" + RETURN_ARGUMENT,
    "writes to tmp": "open('/tmp/rlhf_attack', 'w').write('x')" + RETURN_ARGUMENT,
    "writes to cwd": "open('rlhf_attack', 'w').write('x')" + RETURN_ARGUMENT,
    "shared memory file": "open('/dev/shm/rlhf_attack', 'w').write('x')" + RETURN_ARGUMENT,
    "ten thousand files": "import os\nfor i in range(10**4):\n    os.close(os.open(f'FOLDER/{i}', os.O_CREAT | os.O_WRONLY))"
    + RETURN_ARGUMENT,
    "symlink": "import os\nos.symlink('FOLDER/secret', 'FOLDER/link')" + RETURN_ARGUMENT,
    "removes files": "import os\nos.unlink('FOLDER/secret')" + RETURN_ARGUMENT,
    "renames": "import os\nos.rename('FOLDER/secret', 'FOLDER/other')" + RETURN_ARGUMENT,
    "changes mode": "import os\nos.chmod('FOLDER/secret', 0o777)" + RETURN_ARGUMENT,
    "TCP": "import socket\nsocket.create_connection(('127.0.0.1', PORT), 1).send(b'x')" + RETURN_ARGUMENT,
    "UDP": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))" + RETURN_ARGUMENT,
    "abstract socket": "import socket\ns = socket.socket(socket.AF_UNIX)\ns.bind('\\0rlhf')\ns.listen()" + RETURN_ARGUMENT,
    "netlink": "import socket\nsocket.socket(16, socket.SOCK_RAW, 0)" + RETURN_ARGUMENT,
    "kills its parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)" + RETURN_ARGUMENT,
    "kills the judge": "import os, signal\nos.kill(JUDGE, signal.SIGTERM)" + RETURN_ARGUMENT,
    "kills everything": "import os, signal\nos.kill(-1, signal.SIGKILL)" + RETURN_ARGUMENT,
    "ptrace": "import ctypes\nassert ctypes.CDLL(None).ptrace(16, JUDGE, 0, 0) == 0" + RETURN_ARGUMENT,
    "process_vm_writev": "import ctypes\nassert ctypes.CDLL(None).process_vm_writev(JUDGE, 0, 0, 0, 0, 0) == 0" + RETURN_ARGUMENT,
    "signals through fcntl": "import fcntl, os\nfcntl.fcntl(3, fcntl.F_SETOWN, os.getppid())" + RETURN_ARGUMENT,
    "runs a program": "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'echo x > FOLDER/written'])" + RETURN_ARGUMENT,
    "LD_PRELOAD": "import os\nos.environ['LD_PRELOAD'] = '/tmp/x.so'\nos.execv('/usr/bin/env', ['env'])" + RETURN_ARGUMENT,
    "fork": "import os\nif os.fork() == 0:\n    while True:\n        pass" + RETURN_ARGUMENT,
    "double fork": "import os\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        import time\n        time.sleep(60)"
    + RETURN_ARGUMENT,
    "fork bomb": "import os\nwhile True:\n    try:\n        os.fork()\n    except BlockingIOError:\n        pass" + RETURN_ARGUMENT,
    "thread answers": "import threading\nthreading.Thread(target=print).start()" + RETURN_ARGUMENT,
    "thread bomb": "import _thread, time\nwhile True:\n    _thread.start_new_thread(time.sleep, (60,))",
    "namespace": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0" + RETURN_ARGUMENT,
    "raises its limits": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))" + RETURN_ARGUMENT,
    "machine code": (
        "import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\n"
        "m.write(b'\\xb8\\x39\\x00\\x00\\x00\\x0f\\x05\\xc3')\n"  # mov eax, fork; syscall; ret
        "assert ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))() >= 0" + RETURN_ARGUMENT
    ),
    "32-bit calls": (
        "import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\n"
        "m.write(b'\\xb8\\x02\\x00\\x00\\x00\\xcd\\x80\\xc3')\n"  # mov eax, fork; int 0x80; ret
        "assert ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))() >= 0" + RETURN_ARGUMENT
    ),
}

# Exhaustion.
EXHAUSTION = {
    "endless loop": "def f(x):\n    while True:\n        pass",
    "endless loop at import": "while True:\n    pass",
    "sleep": "import time\ndef f(x):\n    time.sleep(600)",
    "ignores signals": "import signal\nfor n in range(1, 32):\n    try:\n        signal.signal(n, signal.SIG_IGN)\n    except OSError:\n        pass\nwhile True:\n    pass",
    "swallows everything": "def f(x):\n    while True:\n        try:\n            while True:\n                pass\n        except BaseException:\n            pass",
    "infinite output": "def f(x):\n    while True:\n        print('x' * 10**6)",
    "infinite stderr": "import os\nwhile True:\n    os.write(2, b'x' * 10**6)",
    "infinite messages": "import os\nwhile True:\n    os.write(3, b'\\x00\\x00\\x00\\x04null' * 1000)",
    "memory bomb": "def f(x):\n    return [bytearray(2**27) for _ in range(100)]",
    "memory bomb in pieces": "def f(x):\n    v = []\n    while True:\n        v.append('x' * 10**6)",
    "stack overflow": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    return f(x)",
    "recursion": "def f(x):\n    return f(x)",
    "power": "def f(x):\n    return 9 ** 9 ** 9",
    "regular expression": "import re\ndef f(x):\n    return re.match('(a+)+$', 'a' * 60 + 'b')",
    "descriptors": "import os\nv = [os.dup(0) for _ in range(10**5)]" + RETURN_ARGUMENT,
    "deep source": "f = " + "(" * 5000 + ")" * 5000,
    "null byte": "def f(x):\n    return x\x00",
    "segmentation fault": "import ctypes\ndef f(x):\n    ctypes.string_at(0)",
    "stops itself": "import os, signal\nsignal.raise_signal(signal.SIGSTOP)" + RETURN_ARGUMENT,
}

ATTACKS = FORGED | INTROSPECTION | VALUES | ESCAPES | EXHAUSTION
