"""Names of devices, and how they compute."""

import pytest
import torch

from sensitometer.device import arithmetic, check_device, check_device_name, matmul_path


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:12"])
def test_names_of_devices(name):
    check_device_name(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "", None, 0])
def test_other_names_are_refused(refused, name):
    with refused("device must be"):
        check_device_name(name)


def test_a_device_that_is_not_there_is_refused(refused):
    with refused("device cuda:99 was asked for, but torch finds"):
        check_device("cuda:99")


@pytest.mark.parametrize("tf32", [True, False])
def test_a_gpu_computes_in_full_float32_whatever_the_process_has_set(tf32):
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        with arithmetic("cuda"):
            assert not torch.backends.cuda.matmul.allow_tf32
            assert matmul_path("cuda") == "cublas"
        assert torch.backends.cuda.matmul.allow_tf32 == tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def test_tf32_is_taken_by_name_only(monkeypatch):
    monkeypatch.setenv("SENSITOMETER_MATMUL", "tf32")
    with arithmetic("cuda:1"):
        assert torch.backends.cuda.matmul.allow_tf32
        assert matmul_path("cuda:1") == "cublas-tf32"
    assert not torch.backends.cuda.matmul.allow_tf32


def test_computing_takes_one_thread_and_gives_the_others_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), arithmetic("cpu"):
            assert torch.get_num_threads() == 1
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_path_of_the_cpu_is_that_of_the_process():
    assert matmul_path("cpu") == "stock"
