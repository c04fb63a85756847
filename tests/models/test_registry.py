import pytest

from konkyo.models import registry


def test_networks_by_name():
    assert {"abn", "amb", "backbone", "cnn", "gcm", "multiscale-abn"} <= set(registry.names())
    assert type(registry.build("gcm", 3, clipped=True)).__name__ == "GCM"


def test_a_network_may_have_an_argument_called_name():
    assert registry.build("backbone", 3, name="alexnet").name == "alexnet"


def test_an_unknown_network_is_refused_with_those_that_exist():
    with pytest.raises(KeyError, match=r"'nope'; there are: .*gcm"):
        registry.build("nope", 10)


def test_an_argument_it_does_not_take_is_refused():
    with pytest.raises(TypeError, match="widths"):
        registry.build("gcm", 10, widths=[1])


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="'gcm' is registered twice"):
        registry.register("gcm")(type(registry.build("gcm", 2)))
