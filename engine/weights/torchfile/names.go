package torchfile

import "strings"

// forbidden are modules that have no business in weights, with all that is below them. A file that names one is refused.
var forbidden = words(`
	os posix nt ntpath posixpath subprocess sys importlib imp runpy shutil socket ssl pickle _pickle cPickle pickletools dill
	cloudpickle joblib marshal shelve ctypes cffi code codeop commands pty popen2 platform webbrowser multiprocessing threading _thread
	concurrent asyncio signal tempfile io _io urllib http requests ftplib smtplib telnetlib xmlrpc socketserver operator _operator
	functools _functools itertools types inspect gc zipimport pkgutil pdb bdb trace timeit profile cProfile ast dis logging glob fileinput
	linecache pip setuptools distutils pydoc doctest unittest idlelib lib2to3 site venv ensurepip nturl2path antigravity readline
	rlcompleter builtins __builtin__ copyreg copy_reg weakref sqlite3 resource
	torch.hub torch.jit torch.serialization torch.utils.cpp_extension torch.utils.model_zoo torch.package torch.distributed
	torch._inductor torch._dynamo torch.fx torch.ops torch.classes torch.multiprocessing
	numpy.f2py numpy.testing numpy.distutils numpy.ctypeslib numpy.lib`)

// forbiddenNames are single ones in modules that are not.
var forbiddenNames = words(`
	torch.load torch.compile torch.from_file torch.storage._load_from_bytes
	numpy.load numpy.loads numpy.fromfile numpy.memmap numpy.genfromtxt numpy.vectorize`)

// plainTypes are the builtins that are data types.
var plainTypes = words(`
	set frozenset list dict tuple int float bool str bytes bytearray complex slice range xrange unicode long object`)

func words(text string) map[string]bool {
	set := map[string]bool{}
	for _, w := range strings.Fields(text) {
		set[w] = true
	}
	return set
}

// isForbidden tells whether a file with that name is refused.
func (g global) isForbidden() bool {
	if (g.module == "builtins" || g.module == "__builtin__") && plainTypes[g.name] {
		return false
	}
	if forbiddenNames[g.module+"."+g.name] || strings.Contains(g.name, ".") || strings.HasPrefix(g.name, "__") {
		return true
	}
	for i := range len(g.module) + 1 {
		if (i == len(g.module) || g.module[i] == '.') && forbidden[g.module[:i]] {
			return true
		}
	}
	return false
}

func (g global) is(module, name string) bool { return g.module == module && g.name == name }

func (g global) String() string { return g.module + "." + g.name }
