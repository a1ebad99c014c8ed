// SPDX-License-Identifier: Apache-2.0

// Package modsign signs kernel modules as the kernel's own scripts/sign-file does:
// a detached PKCS#7 message without attributes and without certificates is appended
// to the module, then struct module_signature (include/linux/module_signature.h),
// then a line that marks the end (Documentation/admin-guide/module-signing.rst).
package modsign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/smallstep/pkcs7"
)

// Marker ends each signed module.
const Marker = "~Module signature appended~\n"

// idPKCS7 is PKEY_ID_PKCS7 of enum pkey_id_type.
const idPKCS7 = 2

// infoSize is the size of struct module_signature.
const infoSize = 12

// maxPEM bounds a key or certificate file.
const maxPEM = 64 << 10

// Signer holds a key and its certificate.
type Signer struct {
	key  crypto.Signer
	cert *x509.Certificate
}

// UntrustedFileError: others than root can read a key or change a key or
// certificate.
type UntrustedFileError struct {
	Path, What, Remedy string
}

func (e *UntrustedFileError) Error() string {
	return fmt.Sprintf("checking %s: %s (%s)", e.Path, e.What, e.Remedy)
}

// Load reads a PEM private key (PKCS#8, PKCS#1 or SEC 1) and a certificate (PEM or
// DER). Both must belong to root; nobody else may read the key or write to either.
// RSA keys and ECDSA keys on the curves P-256 and P-384 are taken: what kernels
// verify.
func Load(keyPath, certPath string) (*Signer, error) { return load(keyPath, certPath, 0) }

func load(keyPath, certPath string, owner uint32) (*Signer, error) {
	keyPEM, err := readTrusted(keyPath, owner, 0o077)
	if err != nil {
		return nil, err
	}
	certPEM, err := readTrusted(certPath, owner, 0o022)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("reading the key %s: %w", keyPath, err)
	}
	cert, err := parseCert(certPEM)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate %s: %w", certPath, err)
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("reading the certificate %s: it is not that of the key %s", certPath, keyPath)
	}
	return &Signer{key: key, cert: cert}, nil
}

// readTrusted reads a file that nobody but its owner could have written. The open
// file is asked, so that it cannot be exchanged in between.
func readTrusted(path string, owner uint32, forbidden os.FileMode) ([]byte, error) {
	// A FIFO in its place must not hold us up.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	refuse := func(what, remedy string) error { return &UntrustedFileError{path, what, remedy} }
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return nil, refuse("it is not a regular file", "name a file")
	case !ok || st.Uid != owner:
		return nil, refuse("it does not belong to root", "chown root "+path)
	case info.Mode().Perm()&forbidden&0o022 != 0:
		return nil, refuse("others than root can write to it", "chmod go-w "+path)
	case info.Mode().Perm()&forbidden != 0:
		return nil, refuse("others than root can read it", "chmod 600 "+path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(data) > maxPEM {
		err = fmt.Errorf("larger than %d bytes", maxPEM)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return data, nil
}

func parseKey(data []byte) (crypto.Signer, error) {
	// A file of openssl may hold the certificate, too, or parameters of the curve.
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return nil, errors.New("no private key in PEM form is in it")
		}
		data = rest
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("it is encrypted; nobody is there to give the passphrase: write it with openssl pkey -in FILE -out FILE")
		default:
			continue
		}
		if err != nil {
			return nil, err
		}
		if block.Headers["DEK-Info"] != "" {
			return nil, errors.New("it is encrypted")
		}
		switch k := key.(type) {
		case *rsa.PrivateKey:
			if k.N.BitLen() < 2048 {
				return nil, fmt.Errorf("an RSA key of %d bits is too weak; make one of 2048 or more", k.N.BitLen())
			}
			return k, nil
		case *ecdsa.PrivateKey:
			if name := k.Curve.Params().Name; name != "P-256" && name != "P-384" {
				return nil, fmt.Errorf("kernels do not know the curve %s", name)
			}
			return k, nil
		}
		return nil, fmt.Errorf("kernels verify RSA and ECDSA keys, and not %T", key)
	}
}

func parseCert(data []byte) (*x509.Certificate, error) {
	for rest := data; ; {
		block, next := pem.Decode(rest)
		if block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
		rest = next
	}
	return x509.ParseCertificate(data)
}

// Subject names the certificate for people.
func (s *Signer) Subject() string { return s.cert.Subject.String() }

// Sign returns module with its signature appended. The same module and key give the
// same bytes with RSA; ECDSA signatures differ each time. A module that is signed
// already is refused: the kernel looks at the last signature only.
func (s *Signer) Sign(module []byte) ([]byte, error) {
	if bytes.HasSuffix(module, []byte(Marker)) {
		return nil, errors.New("signing the module: it has a signature already")
	}
	message, err := s.message(module)
	if err != nil {
		return nil, fmt.Errorf("signing the module: %w", err)
	}
	info := make([]byte, infoSize)
	info[2] = idPKCS7
	binary.BigEndian.PutUint32(info[8:], uint32(len(message)))
	out := make([]byte, 0, len(module)+len(message)+infoSize+len(Marker))
	out = append(out, module...)
	out = append(out, message...)
	out = append(out, info...)
	return append(out, Marker...), nil
}

func (s *Signer) message(module []byte) ([]byte, error) {
	data, err := pkcs7.NewSignedData(module)
	if err != nil {
		return nil, err
	}
	data.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if _, ok := s.key.(*rsa.PrivateKey); ok {
		// Kernels know this algorithm by the name of the key, not of the pair.
		data.SetEncryptionAlgorithm(pkcs7.OIDEncryptionAlgorithmRSA)
	}
	// The signer is named by issuer and serial number. The kernel has the certificate,
	// so that it is left out, as sign-file does.
	name := &x509.Certificate{RawIssuer: s.cert.RawIssuer, SerialNumber: s.cert.SerialNumber}
	if err := data.SignWithoutAttr(name, s.key, pkcs7.SignerInfoConfig{}); err != nil {
		return nil, err
	}
	data.Detach()
	signed := data.GetSignedData()
	if _, ok := s.key.(*rsa.PrivateKey); ok {
		// RFC 3370, section 3.2: the parameters of rsaEncryption are NULL, and not absent.
		signed.SignerInfos[0].DigestEncryptionAlgorithm.Parameters = asn1.NullRawValue
	}
	// Not Finish, which would add an empty set of certificates.
	inner, err := asn1.Marshal(*signed)
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(struct {
		ContentType asn1.ObjectIdentifier
		Content     asn1.RawValue
	}{pkcs7.OIDSignedData, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: inner}})
}

// ErrNotSigned: there is no signature at the end of the module.
var ErrNotSigned = errors.New("the module is not signed")

// Split returns a signed module without its signature, and the PKCS#7 message.
func Split(signed []byte) (module, message []byte, err error) {
	rest, ok := bytes.CutSuffix(signed, []byte(Marker))
	if !ok || len(rest) < infoSize {
		return nil, nil, ErrNotSigned
	}
	info := rest[len(rest)-infoSize:]
	rest = rest[:len(rest)-infoSize]
	size := binary.BigEndian.Uint32(info[8:])
	if info[2] != idPKCS7 || uint64(size) >= uint64(len(rest)) {
		return nil, nil, fmt.Errorf("reading the signature of the module: kind %d, %d bytes: %w", info[2], size, ErrNotSigned)
	}
	cut := len(rest) - int(size)
	return rest[:cut], rest[cut:], nil
}
