// SPDX-License-Identifier: Apache-2.0

package backend

import pb "github.com/upsplice/upsplice/plugins/backend/backendpb"

func each[A, B any](in []A, f func(A) B) []B {
	if len(in) == 0 {
		return nil
	}
	out := make([]B, len(in))
	for i, v := range in {
		out[i] = f(v)
	}
	return out
}

func packageToPB(p Package) *pb.Package {
	return &pb.Package{Name: p.Name, Arch: p.Arch, OldVersion: p.OldVersion, NewVersion: p.NewVersion, Path: p.Path}
}

func packageFromPB(p *pb.Package) Package {
	return Package{Name: p.GetName(), Arch: p.GetArch(), OldVersion: p.GetOldVersion(), NewVersion: p.GetNewVersion(), Path: p.GetPath()}
}

func kernelToPB(k Kernel) *pb.Kernel {
	return &pb.Kernel{Release: k.Release, Flavour: k.Flavour, Arch: k.Arch, Package: k.Package, Version: k.Version,
		Source: k.Source, SourceVersion: k.SourceVersion, Path: k.Path}
}

func kernelFromPB(k *pb.Kernel) Kernel {
	return Kernel{Release: k.GetRelease(), Flavour: k.GetFlavour(), Arch: k.GetArch(), Package: k.GetPackage(),
		Version: k.GetVersion(), Source: k.GetSource(), SourceVersion: k.GetSourceVersion(), Path: k.GetPath()}
}

func materialsToPB(m Materials) *pb.Materials {
	return &pb.Materials{SourceArchive: m.SourceArchive, Headers: m.Headers, Kbuild: m.Kbuild, Config: m.Config,
		Image: m.Image, Module: m.Module, Modules: m.Modules, Compiler: m.Compiler}
}

func materialsFromPB(m *pb.Materials) Materials {
	return Materials{SourceArchive: m.GetSourceArchive(), Headers: m.GetHeaders(), Kbuild: m.GetKbuild(),
		Config: m.GetConfig(), Image: m.GetImage(), Module: m.GetModule(), Modules: m.GetModules(), Compiler: m.GetCompiler()}
}

func changeToPB(c Change) *pb.Change {
	return &pb.Change{Version: c.Version, Text: c.Text, Cves: c.CVEs}
}

func changeFromPB(c *pb.Change) Change {
	return Change{Version: c.GetVersion(), Text: c.GetText(), CVEs: c.GetCves()}
}

func prebuiltToPB(p Prebuilt) *pb.Prebuilt { return &pb.Prebuilt{Url: p.URL, Sha256: p.SHA256} }

func prebuiltFromPB(p *pb.Prebuilt) Prebuilt { return Prebuilt{URL: p.GetUrl(), SHA256: p.GetSha256()} }
