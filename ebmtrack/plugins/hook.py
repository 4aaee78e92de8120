"""The import hook by which pytracking finds this tracker in an untouched checkout; standard library only.

Importing this file installs the hook, once. Three places do so: a .pth file at interpreter start (`ebmtrack pytracking
enable`), `ebmtrack.plugins.launch`, and a worker of the host when it unpickles a Tracker of the host that runs ours. So
nothing here may cost time: what is needed later is imported later. Without pytracking nothing happens.
"""

import sys

from ebmtrack.plugins.pytracking_names import HOST, NAME, PARAMETERS, TRACKER, TRAINING

VIDEO_METHODS = ("run_video_generic", "run_video", "run_webcam")  # they hand on OpenCV's frames, which are BGR


class Finder:
    """Answers for the three packages above and for the host's Tracker class; every other name passes."""

    for_pytracking = True

    @staticmethod
    def find_spec(name, path=None, target=None):
        """Return the spec of a module that exists only here, or of the host's one with an addition; else None."""
        if not name.startswith(("pytracking.", "ltr.")):
            return None
        if name == HOST:
            return _host_spec(name, path)
        if name in (TRACKER, PARAMETERS, TRAINING):
            return _package_spec(name, path)
        if name.rpartition(".")[0] in (PARAMETERS, TRAINING):
            return _set_up_spec(name, path)
        return None


class Loader:
    """Fills a module with what `ebmtrack.plugins.pytracking` has for its name."""

    @staticmethod
    def create_module(spec):
        """Return an ordinary empty module."""
        return None

    @staticmethod
    def exec_module(module):
        """Give the module its functions; only now torch is imported."""
        from ebmtrack.plugins.pytracking import fill

        fill(module)


def install() -> None:
    """Put the finder first on sys.meta_path, unless one is there; complete the host's class if it is loaded."""
    if not any(getattr(finder, "for_pytracking", False) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder)
    if HOST in sys.modules:
        complete(sys.modules[HOST])


def complete(host) -> None:
    """Let the Tracker class of the host's module find ours, and say when its frames are BGR; once."""
    kind = getattr(host, "Tracker", None)
    if kind is None or getattr(kind, "_knows_ebmtrack", False):
        return
    kind._knows_ebmtrack = True
    kind.__init__ = _with_class(kind.__init__)
    kind.__reduce_ex__ = _reduce
    for name in VIDEO_METHODS:
        if hasattr(kind, name):
            setattr(kind, name, _with_note(getattr(kind, name)))
    if hasattr(kind, "get_parameters"):
        kind.get_parameters = _with_notes(kind.get_parameters)


def _package_spec(name, path):
    """Return the spec of a package of ours, whose modules may also lie in the host's own folder of that name."""
    import os
    from importlib.machinery import ModuleSpec

    spec = ModuleSpec(name, Loader, origin="ebmtrack", is_package=True)
    spec.submodule_search_locations = [os.path.join(folder, NAME) for folder in path or ()]
    return spec


def _set_up_spec(name, path):
    """Return the spec of the user's own file in the checkout if there is one, else of ours."""
    from importlib.machinery import ModuleSpec, PathFinder

    return PathFinder.find_spec(name, path) or ModuleSpec(name, Loader, origin="ebmtrack")


def _host_spec(name, path):
    """Return the spec of the host's module, which is completed after it has run."""
    from importlib.machinery import PathFinder

    spec = PathFinder.find_spec(name, path)
    if spec is None or spec.loader is None:
        return spec
    run = spec.loader.exec_module

    def exec_module(module):
        run(module)
        complete(module)

    spec.loader.exec_module = exec_module
    return spec


def _with_class(init):
    """Wrap `Tracker.__init__`: it then imports our class, as the host does if it has a folder of that name."""
    from functools import wraps

    @wraps(init)
    def with_class(self, *args, **options):
        init(self, *args, **options)
        if self.name == NAME and self.tracker_class is None:
            from importlib import import_module

            self.tracker_class = import_module(TRACKER).get_tracker_class()

    return with_class


def _reduce(tracker, protocol):
    """Pickle a Tracker of the host as usual; if it runs ours, let the process that unpickles it load this file first.

    Workers that the host spawns without the .pth file get the hook in this way.
    """
    make, *rest = object.__reduce_ex__(tracker, max(protocol, 2))
    return (_make if tracker.name == NAME else make, *rest)


def _make(kind, *arguments):
    """Return an empty object of the class `kind`, as `copyreg.__newobj__` does."""
    return kind.__new__(kind, *arguments)


def _with_note(run):
    """Return a video method that notes, while it runs, that its frames are BGR (unless it converts them by itself)."""
    from functools import wraps

    @wraps(run)
    def with_note(self, *args, **options):
        from inspect import getsource

        self.frames_are_bgr = "BGR2RGB" not in getsource(run)
        try:
            return run(self, *args, **options)
        finally:
            del self.frames_are_bgr

    return with_note


def _with_notes(get_parameters):
    """Wrap `Tracker.get_parameters`: tell our tracker the order of colours and the run id.

    The host itself sets `params.run_id` in its VOT methods only, so that all runs of a data set had the same seed.
    """
    from functools import wraps

    @wraps(get_parameters)
    def with_notes(self, *args, **options):
        params = get_parameters(self, *args, **options)
        if self.name == NAME:
            params.frames_are_bgr = getattr(self, "frames_are_bgr", False)
            params.run_id = getattr(self, "run_id", None)
        return params

    return with_notes


install()
