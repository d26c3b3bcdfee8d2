def test_a(lab_world):
    w=lab_world("two")
    w["host"].popen(["sleep","100"])
    assert w.misrouted()=={}
import pytest
def test_b():
    pytest.skip("x")
