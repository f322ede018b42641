"""How the package's tests run."""

from hypothesis import HealthCheck, settings

# Beside other tests on a busy machine, time says nothing; and nothing is left behind in the working tree.
settings.register_profile("package", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("package")
