"""Packaging of mmseg_hrhf: class-incremental segmentation for MMSegmentation."""
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent


def version() -> str:
    scope = {}
    exec((HERE / 'mmseg_hrhf' / 'version.py').read_text(encoding='utf-8'), scope)
    return scope['__version__']


class BuildWithMim(build_py):
    """Puts configs, tools and model-index.yml into the wheel's ``mmseg_hrhf/.mim``, where mim and mmengine look."""

    def run(self):
        super().run()
        if self.editable_mode:
            return  # the source tree has them
        folder = Path(self.build_lib) / 'mmseg_hrhf' / '.mim'
        for name in ('configs', 'tools'):
            caches = shutil.ignore_patterns('__pycache__')
            shutil.copytree(HERE / name, folder / name, dirs_exist_ok=True, ignore=caches)
        shutil.copy2(HERE / 'model-index.yml', folder)


setup(
    name='mmseg_hrhf',
    version=version(),
    description='Class-incremental semantic segmentation (Half-Real Half-Fake Distillation) for MMSegmentation',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['mmseg_hrhf', 'mmseg_hrhf.*']),
    package_data={'mmseg_hrhf': ['py.typed', 'analysis/templates/*', 'analysis/published.csv']},
    cmdclass=dict(build_py=BuildWithMim),
    python_requires='>=3.9',
    # The toolbox itself is an extra: most users have one of its two lines already.
    install_requires=['numpy>=1.22', 'Pillow>=9.1', 'tqdm>=4.60', 'matplotlib>=3.5', 'Jinja2>=3.0'],
    extras_require={
        'toolbox': [
            'torch>=2.0', 'onedl-mmengine==0.10.12', 'onedl-mmcv==2.3.6', 'onedl-mmsegmentation==1.4.2'
        ],
        'voc': ['scipy>=1.7'],  # tools/prepare_voc.py: SBD's MATLAB files
        'tests': [
            'pytest>=7.0', 'pytest-xdist>=3.5', 'hypothesis>=6.80', 'ruff>=0.6', 'mypy>=1.11', 'import-linter>=2.1',
            'scipy>=1.7'
        ],
    },
    classifiers=[
        'Development Status :: 4 - Beta',
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
